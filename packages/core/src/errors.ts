/**
 * The one error class of kofn. A message says what happened, to whom, and what to do about it; `code` is for programs.
 */

/** Every code a {@link KofnError} can carry. A closed list: new failures use one of these or extend it here. */
export const ERROR_CODES = [
  /** An option or argument is outside its allowed range. The message names it, the value and the range. */
  'INVALID_ARGUMENT',
  /** Bytes that should be an ONNX model are not one, or use it in a way that is not valid. */
  'INVALID_MODEL',
  /** A model, shard, file, layer or input of that name does not exist. */
  'NOT_FOUND',
  /** A tensor has another shape than the model or layer takes. */
  'SHAPE_MISMATCH',
  /** A tensor has another element type than the model or layer takes. */
  'DTYPE_MISMATCH',
  /** NaN or infinity where a finite value was asked for. */
  'NON_FINITE',
  /** Stored or received bytes do not hash to their name, do not fit their checksum, or are cut off. */
  'DATA_LOSS',
  /** A worker's reply is not what its block gives for the input, as verification found. */
  'WRONG_ANSWER',
  /** The other end cannot be reached or the connection broke. */
  'UNAVAILABLE',
  /** The request did not end by its deadline. */
  'DEADLINE_EXCEEDED',
  /** The caller's AbortSignal fired. */
  'CANCELLED',
  /** The other end does not allow it, as it was started. */
  'PERMISSION_DENIED',
  /** The other end asks who is calling, and was not told, or told wrong. */
  'UNAUTHENTICATED',
  /** A limit on memory, disk, message size or queue length was reached. */
  'RESOURCE_EXHAUSTED',
  /** Fewer than k workers are left for a layer and the policy forbids another way. */
  'NOT_ENOUGH_WORKERS',
  /** These blocks do not determine the output (too few, or a singular or ill-conditioned set). */
  'UNDECODABLE',
  /** The address to listen on is taken. */
  'ADDRESS_IN_USE',
  /** The data directory cannot be read or written. */
  'STORAGE',
  /** ONNX Runtime refused a model or failed while running it. */
  'ENGINE',
  /** Valid, but not something that kofn does. */
  'UNSUPPORTED',
  /** The other end broke the protocol. */
  'PROTOCOL',
  /** A defect in kofn. */
  'INTERNAL',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export class KofnError extends Error {
  override readonly name = 'KofnError';
  readonly code: ErrorCode;
  /** When it may go better, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; retryAfterMs?: number }) {
    super(message, options);
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs;
  }

  /** `error` as a KofnError: itself when it is one, otherwise wrapped with `code` and its message as the tail. */
  static from(error: unknown, code: ErrorCode = 'INTERNAL', context = ''): KofnError {
    if (error instanceof KofnError) return error;
    const text = error instanceof Error ? error.message : String(error);
    return new KofnError(code, context === '' ? text : `${context}: ${text}`, { cause: error });
  }
}

export function isKofnError(error: unknown, code?: ErrorCode): error is KofnError {
  return error instanceof KofnError && (code === undefined || error.code === code);
}

export function isErrorCode(text: string): text is ErrorCode {
  return (ERROR_CODES as readonly string[]).includes(text);
}

/** For a value that the types say cannot occur: a defect in kofn when it does. */
export function unreachable(value: never): never {
  throw new KofnError('INTERNAL', `unexpected value ${String(value)}`);
}
