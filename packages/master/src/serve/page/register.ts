/**
 * The page that `kofn serve` shows, and what it reads: its files, `GET /kofn/v1/state`, `GET /kofn/v1/events`, and where faults are allowed
 * `POST /kofn/v1/faults`. Who may ask is the server's to say; a browser's request that another site made is refused here.
 */
import { FAULT_ACTIONS, type FaultRequest } from '@kofn/dashboard';
import { KofnError, type ErrorCode } from '@kofn/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ServerView } from '../served.js';
import type { FaultButtons } from './fault-buttons.js';
import { Feed } from './feed.js';
import { readPage, SECURITY_HEADERS } from './files.js';
import { MAX_READERS, Readers } from './readers.js';

export interface PageOptions {
  /** Undefined where nobody may bring faults upon workers. */
  readonly faults: FaultButtons | undefined;
}

const FAULT_BODY = {
  type: 'object',
  required: ['worker', 'action'],
  additionalProperties: false,
  properties: { worker: { type: 'integer', minimum: 0 }, action: { enum: FAULT_ACTIONS } },
};

const STATUS: Partial<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  RESOURCE_EXHAUSTED: 429,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
};

/** Throws NOT_FOUND when the page was not built. */
export function registerPage(app: FastifyInstance, view: ServerView, { faults }: PageOptions): void {
  for (const { url, bytes, headers } of readPage()) {
    app.get(url, (_request, reply) => reply.headers(headers).send(bytes));
  }
  const feed = new Feed(view, { faults: faults !== undefined });
  const readers = new Readers(feed);
  app.addHook('preClose', done => {
    readers.end();
    feed[Symbol.dispose]();
    done();
  });

  app.get('/kofn/v1/state', (_request, reply) =>
    reply.headers({ ...SECURITY_HEADERS, 'cache-control': 'no-store' }).send(feed.state()),
  );

  app.get('/kofn/v1/events', (request, reply) => {
    if (readers.isFull) {
      const error = `${MAX_READERS} pages listen already; close one, and this one goes on by itself`;
      return reply.code(429).header('retry-after', '5').send({ error });
    }
    const lastId = request.headers['last-event-id'];
    reply.hijack();
    reply.raw.writeHead(200, {
      ...SECURITY_HEADERS,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    readers.add(reply.raw, typeof lastId === 'string' ? lastId : undefined);
    return reply;
  });

  if (faults === undefined) return;
  app.post<{ Body: FaultRequest }>('/kofn/v1/faults', { schema: { body: FAULT_BODY } }, async (request, reply) => {
    if (!isSameOrigin(request)) return reply.code(403).send({ error: 'only the page itself may bring faults' });
    const { worker, action } = request.body;
    try {
      await faults.act(worker, action);
    } catch (error) {
      const { code, message } = KofnError.from(error);
      return reply.code(STATUS[code] ?? 500).send({ error: message });
    }
    return { worker, action };
  });
}

/** Browsers say where a request comes from; what is no browser says nothing, and has no user's rights to be abused. */
function isSameOrigin({ headers }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin') return false;
  if (headers.origin === undefined) return true;
  return URL.canParse(headers.origin) && new URL(headers.origin).host === headers.host;
}
