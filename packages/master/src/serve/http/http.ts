/**
 * The HTTP server: limits, access and errors, the same for every route. rest.ts adds the protocol's routes.
 *
 * Invariants
 * 1. Every error is JSON, {"error": "…"}, with the status that its code has here.
 * 2. A client that is slow to send, or does not read, holds a connection for a limited time and holds up nobody else.
 * 3. Every route asks for the token but those with `config: { public: true }`, which give nothing away.
 * 4. A body is not asked for, read or decoded before the headers of its request were found good, nor beyond `maxMessageBytes`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { KofnError, type ErrorCode } from '@kofn/core';
import fastify, {
  errorCodes,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import { checkOrigin, type Access, type AccessOptions } from './access.js';
import { Decoder, decodingsOf, encoded, encodingFor, ENCODINGS, isAnswerable } from './content-coding.js';
import { parseJson } from './json.js';
import { followMethods } from './methods.js';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Needs no token. */
    public?: boolean;
  }
  interface FastifyInstance {
    /** A body as its client has it. Throws as `Decoder.decode`. */
    decodeBody(request: FastifyRequest, body: Buffer): Promise<Buffer>;
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
/** Of a name in a path: as long as headers may be, so that whoever asks for one that is too long hears that it is not there. */
const MAX_PARAM_CHARS = 16_384;

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
    exposeHeadRoutes: true,
    routerOptions: { maxParamLength: MAX_PARAM_CHARS },
    clientErrorHandler: answerClientError,
    frameworkErrors: (error, _request, reply) => void sendError(reply, error),
  }) as unknown as FastifyInstance;
  app.server.maxConnections = maxConnections;
  // Left alone, Node would ask for the body before anything of the request is known.
  app.server.on('checkContinue', (request, response) => app.server.emit('request', request, response));
  app.server.on('checkExpectation', refuseExpectation);
  const methodsOf = followMethods(app);
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
  app.addHook('onRequest', (request, reply, done) => {
    const refused = request.is404 ? refuseRoute(request, reply, methodsOf) : refuseCoding(request, reply);
    if (!refused) done();
  });
  app.addHook('preParsing', ({ headers, raw }, reply, _body, done) => {
    if (Number(headers['content-length']) > maxMessageBytes) throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
    if (headers.expect !== undefined && !raw.complete) reply.raw.writeContinue();
    done();
  });
  const decoder = new Decoder(maxMessageBytes);
  app.decorate('decodeBody', ({ headers }: FastifyRequest, body: Buffer) =>
    decoder.decode(body, headers['content-encoding']),
  );
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (request: FastifyRequest, body: Buffer) =>
    parseJson(await app.decodeBody(request, body)),
  );
  app.addHook('onSend', async (request, reply, payload) => {
    void reply.header('x-content-type-options', 'nosniff');
    void reply.header('referrer-policy', 'no-referrer');
    const type = reply.getHeader('content-type');
    if (typeof type === 'string' && type.startsWith('text/html')) {
      void reply.header('content-security-policy', CONTENT_SECURITY_POLICY);
    }
    // A body that was never asked for may come all the same, and would be read as the next request.
    if (request.headers.expect !== undefined && !request.raw.complete) void reply.header('connection', 'close');
    return encodedPayload(request, reply, payload);
  });
  app.setErrorHandler((error, _request, reply) => sendError(reply, error));
  return app;
}

/** Answers a request that has no route. */
function refuseRoute(
  { method, url }: FastifyRequest,
  reply: FastifyReply,
  methodsOf: (path: string) => string[],
): true {
  const methods = methodsOf(url.split('?', 1)[0]!);
  const what = `there is no ${method} ${url.slice(0, 200)}`;
  if (methods.length === 0) {
    sendError(reply, new KofnError('NOT_FOUND', `${what}; docs/serving.md lists what there is`));
    return true;
  }
  void reply.header('allow', methods.join(', '));
  if (method === 'OPTIONS') void reply.status(204).send();
  else sendError(reply, new KofnError('UNSUPPORTED', `${what}; it takes ${methods.join(', ')}`), 405);
  return true;
}

/** Answers a request whose body is in a coding that is not read here, or whose client takes none that an answer can have. */
function refuseCoding({ headers }: FastifyRequest, reply: FastifyReply): boolean {
  const { 'content-encoding': given, 'transfer-encoding': transfer = 'chunked', 'accept-encoding': accepted } = headers;
  if (transfer.toLowerCase() !== 'chunked') {
    const what = `Transfer-Encoding ${transfer.slice(0, 100)} is not read here; send chunks, and say of their content Content-Encoding`;
    sendError(reply, new KofnError('UNSUPPORTED', what), 501);
    return true;
  }
  if (decodingsOf(given) === undefined) {
    const what = `Content-Encoding ${given!.slice(0, 100)} is not read here; send the body as it is, or in ${ENCODINGS}`;
    sendError(reply.header('accept-encoding', ENCODINGS), new KofnError('UNSUPPORTED', what), 415);
    return true;
  }
  if (isAnswerable(accepted)) return false;
  const what = `Accept-Encoding ${String(accepted).slice(0, 100)} leaves no answer; take one of ${ENCODINGS}, or identity`;
  sendError(reply, new KofnError('UNSUPPORTED', what), 406);
  return true;
}

/** `payload` in the coding that the client prefers. */
async function encodedPayload(request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> {
  if (typeof payload !== 'string' && !Buffer.isBuffer(payload)) return payload;
  void reply.header('vary', 'accept-encoding');
  const coding = encodingFor(request.headers['accept-encoding'], Buffer.byteLength(payload));
  if (coding === undefined) return payload;
  void reply.header('content-encoding', coding).removeHeader('content-length');
  return encoded(payload, coding);
}

/** Answers with `error`, whatever was thrown; `status` where HTTP has one that no code stands for. */
export function sendError(reply: FastifyReply, error: unknown, status?: number): FastifyReply {
  const { status: own, message, retryAfterMs } = describe(error);
  if (own === 401) void reply.header('www-authenticate', 'Bearer');
  if (retryAfterMs !== undefined) {
    void reply.header('retry-after', String(Math.max(LEAST_RETRY_S, Math.ceil(retryAfterMs / 1000))));
  }
  return reply
    .status(status ?? own)
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

function refuseExpectation({ headers }: IncomingMessage, response: ServerResponse): void {
  const error = `Expect ${String(headers.expect).slice(0, 100)} is not supported; expect 100-continue, or nothing`;
  response.writeHead(417, { 'content-type': 'application/json; charset=utf-8', connection: 'close' });
  response.end(JSON.stringify({ error }));
}

/** What is no HTTP, or did not come in time: there is no request to answer, only a connection. */
function answerClientError(error: NodeJS.ErrnoException & { readonly reason?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const [status, message] =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? ['408 Request Timeout', 'the request did not come in time']
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? ['431 Request Header Fields Too Large', 'the headers are too large']
        : ['400 Bad Request', `this is not HTTP/1.1: ${error.reason ?? error.message}`];
  const body = JSON.stringify({ error: message });
  const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body, () => socket.destroy());
}
