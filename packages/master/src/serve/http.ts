/**
 * The HTTP server: limits, access and errors, the same for every route. rest.ts adds the protocol's routes.
 *
 * Invariants
 * 1. Every error is JSON, {"error": "…"}, with the status that its code has here.
 * 2. A client that is slow to send, or does not read, holds a connection for a limited time and holds up nobody else.
 * 3. Every route asks for the token but those with `config: { public: true }`, which give nothing away.
 */
import type { Socket } from 'node:net';
import { KofnError, type ErrorCode } from '@kofn/core';
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import { checkOrigin, type Access, type AccessOptions } from './access.js';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Needs no token. */
    public?: boolean;
  }
}

export interface HttpOptions {
  readonly host: string;
  readonly access: Access;
  readonly tls: AccessOptions['tls'];
  readonly maxMessageBytes: number;
  readonly maxConnections: number;
  /** The longest that a client may take to send a request. */
  readonly clientTimeoutMs: number;
  /** The longest that a request runs. */
  readonly deadlineMs: number;
}

const STATUS: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  INVALID_MODEL: 400,
  NOT_FOUND: 404,
  SHAPE_MISMATCH: 400,
  DTYPE_MISMATCH: 400,
  NON_FINITE: 400,
  DATA_LOSS: 500,
  WRONG_ANSWER: 500,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
  CANCELLED: 503,
  PERMISSION_DENIED: 403,
  UNAUTHENTICATED: 401,
  RESOURCE_EXHAUSTED: 429,
  NOT_ENOUGH_WORKERS: 503,
  UNDECODABLE: 500,
  ADDRESS_IN_USE: 500,
  STORAGE: 500,
  ENGINE: 500,
  UNSUPPORTED: 400,
  PROTOCOL: 400,
  INTERNAL: 500,
};

/** Pages get nothing from elsewhere and are shown in no frame. Pictures and the camera's stream are their own. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "media-src 'self' blob:",
  "connect-src 'self'",
  "font-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** A client that reads nothing for so long after its request could have ended is cut off. */
const SLACK_MS = 30_000;
const HEADERS_TIMEOUT_MS = 10_000;
const LEAST_RETRY_S = 1;

export function createHttp(options: HttpOptions): FastifyInstance {
  const { host, access, tls, maxMessageBytes, maxConnections, clientTimeoutMs, deadlineMs } = options;
  const timeouts = {
    headersTimeout: Math.min(HEADERS_TIMEOUT_MS, clientTimeoutMs),
    connectionsCheckingInterval: Math.min(5_000, clientTimeoutMs / 4),
  };
  const app = fastify({
    ...(tls === undefined ? { http: timeouts } : { https: { ...tls, ...timeouts } }),
    bodyLimit: maxMessageBytes,
    requestTimeout: clientTimeoutMs,
    connectionTimeout: deadlineMs + SLACK_MS,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    clientErrorHandler: answerClientError,
  }) as unknown as FastifyInstance;
  app.server.maxConnections = maxConnections;
  app.addHook('onRequest', (request, _reply, done) => {
    const { headers, routeOptions } = request;
    checkOrigin(headers, access, host);
    if (routeOptions.config.public !== true && !access.allows(headers.authorization)) {
      throw new KofnError(
        'UNAUTHENTICATED',
        'this server asks for a token: give the header Authorization: Bearer TOKEN',
      );
    }
    done();
  });
  app.addHook('onSend', (_request, reply, payload, done) => {
    void reply.header('x-content-type-options', 'nosniff');
    void reply.header('referrer-policy', 'no-referrer');
    const type = reply.getHeader('content-type');
    if (typeof type === 'string' && type.startsWith('text/html')) {
      void reply.header('content-security-policy', CONTENT_SECURITY_POLICY);
    }
    done(null, payload);
  });
  app.setErrorHandler((error, _request, reply) => sendError(reply, error));
  app.setNotFoundHandler((request, reply) => {
    const what = `there is no ${request.method} ${request.url.slice(0, 200)}; docs/serving.md lists what there is`;
    return sendError(reply, new KofnError('NOT_FOUND', what));
  });
  return app;
}

/** Answers with `error`, whatever was thrown. */
export function sendError(reply: FastifyReply, error: unknown): FastifyReply {
  const { status, message, retryAfterMs } = describe(error);
  if (status === 401) void reply.header('www-authenticate', 'Bearer');
  if (retryAfterMs !== undefined) {
    void reply.header('retry-after', String(Math.max(LEAST_RETRY_S, Math.ceil(retryAfterMs / 1000))));
  }
  return reply
    .status(status)
    .type('application/json; charset=utf-8')
    .send(JSON.stringify({ error: message }));
}

function describe(error: unknown): { status: number; message: string; retryAfterMs?: number | undefined } {
  if (!(error instanceof KofnError)) {
    const { statusCode, message } = error as FastifyError;
    if (statusCode !== undefined && statusCode < 500) return { status: statusCode, message };
  }
  const { code, message, retryAfterMs } = KofnError.from(error);
  const status = STATUS[code];
  return { status, message, retryAfterMs: status === 503 ? (retryAfterMs ?? 1_000) : retryAfterMs };
}

/** What is no HTTP, or did not come in time: there is no request to answer, only a connection. */
function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const [status, message] =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? ['408 Request Timeout', 'the request did not come in time']
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? ['431 Request Header Fields Too Large', 'the headers are too large']
        : ['400 Bad Request', 'this is not HTTP/1.1'];
  const body = JSON.stringify({ error: message });
  const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body, () => socket.destroy());
}
