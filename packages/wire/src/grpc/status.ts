/**
 * KofnErrors across gRPC: the nearest status for stock peers, and our exact code beside it in the trailer `kofn-code`.
 */
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { isErrorCode, KofnError, type ErrorCode } from '@kofn/core';

const TRAILER = 'kofn-code';

/** By which a server tells when to try again: gRPC's retry design (its proposal A6) has stock clients obey it. */
const PUSHBACK = 'grpc-retry-pushback-ms';

const STATUS: Readonly<Record<ErrorCode, status>> = {
  INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  INVALID_MODEL: status.INVALID_ARGUMENT,
  NOT_FOUND: status.NOT_FOUND,
  SHAPE_MISMATCH: status.INVALID_ARGUMENT,
  DTYPE_MISMATCH: status.INVALID_ARGUMENT,
  NON_FINITE: status.INVALID_ARGUMENT,
  DATA_LOSS: status.DATA_LOSS,
  WRONG_ANSWER: status.DATA_LOSS,
  UNAVAILABLE: status.UNAVAILABLE,
  DEADLINE_EXCEEDED: status.DEADLINE_EXCEEDED,
  CANCELLED: status.CANCELLED,
  PERMISSION_DENIED: status.PERMISSION_DENIED,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  RESOURCE_EXHAUSTED: status.RESOURCE_EXHAUSTED,
  NOT_ENOUGH_WORKERS: status.UNAVAILABLE,
  UNDECODABLE: status.UNAVAILABLE,
  ADDRESS_IN_USE: status.UNAVAILABLE,
  STORAGE: status.INTERNAL,
  ENGINE: status.INTERNAL,
  UNSUPPORTED: status.UNIMPLEMENTED,
  PROTOCOL: status.INVALID_ARGUMENT,
  INTERNAL: status.INTERNAL,
};

const CODES = new Map<status, ErrorCode>([
  [status.CANCELLED, 'CANCELLED'],
  [status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
  [status.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
  [status.NOT_FOUND, 'NOT_FOUND'],
  [status.PERMISSION_DENIED, 'PERMISSION_DENIED'],
  [status.UNAUTHENTICATED, 'UNAUTHENTICATED'],
  [status.RESOURCE_EXHAUSTED, 'RESOURCE_EXHAUSTED'],
  [status.UNIMPLEMENTED, 'PROTOCOL'],
  [status.UNAVAILABLE, 'UNAVAILABLE'],
  [status.DATA_LOSS, 'DATA_LOSS'],
]);

export function toStatus(error: unknown): { code: status; details: string; metadata: Metadata } {
  const { code, message, retryAfterMs } = KofnError.from(error);
  const metadata = new Metadata();
  metadata.set(TRAILER, code);
  if (retryAfterMs !== undefined) metadata.set(PUSHBACK, String(Math.ceil(retryAfterMs)));
  return { code: STATUS[code], details: message, metadata };
}

export function fromStatus(error: ServiceError, address: string): KofnError {
  const [trailer] = error.metadata?.get(TRAILER) ?? [];
  if (typeof trailer === 'string' && isErrorCode(trailer))
    return new KofnError(trailer, error.details, { cause: error });
  const code = CODES.get(error.code) ?? 'PROTOCOL';
  const details = error.details === '' ? (status[error.code] ?? 'no reason given') : error.details;
  const what = code === 'UNAVAILABLE' ? `${address} cannot be reached (${details})` : `${address}: ${details}`;
  return new KofnError(code, what, { cause: error });
}
