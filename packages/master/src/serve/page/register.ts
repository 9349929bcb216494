/**
 * The page that `kofn serve` shows, and what it reads: its files, which anybody may have, and for those who may use the server
 * `GET /kofn/v1/state`, `GET /kofn/v1/events`, and where faults are allowed `POST /kofn/v1/faults`. Who may, and that no page of another
 * site does, is looked at before (http.ts).
 */
import { KofnError } from '@kofn/core';
import { FAULT_ACTIONS, type FaultRequest } from '@kofn/dashboard';
import type { FastifyInstance } from 'fastify';
import type { ServerView } from '../inference/served.js';
import type { FaultButtons } from './fault-buttons.js';
import { Feed } from './feed.js';
import { readPage } from './files.js';
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
const NOT_KEPT = { 'cache-control': 'no-store' };
const RETRY_MS = 5_000;

/** Throws NOT_FOUND when the page was not built. */
export function registerPage(app: FastifyInstance, view: ServerView, { faults }: PageOptions): void {
  const config = { public: true };
  for (const { url, bytes, headers } of readPage()) {
    app.get(url, { config }, (_request, reply) => reply.headers(headers).send(bytes));
  }
  const feed = new Feed(view, { faults: faults !== undefined });
  const readers = new Readers(feed);
  app.addHook('preClose', done => {
    readers.end();
    feed[Symbol.dispose]();
    done();
  });

  app.get('/kofn/v1/state', (_request, reply) => reply.headers(NOT_KEPT).send(feed.state()));

  const eventHeaders = { ...NOT_KEPT, 'content-type': 'text/event-stream; charset=utf-8' };
  app.head('/kofn/v1/events', (_request, reply) => reply.headers(eventHeaders).send());
  app.get('/kofn/v1/events', { exposeHeadRoute: false }, (request, reply) => {
    if (readers.isFull) {
      const message = `${MAX_READERS} pages listen already; close one, and this one goes on by itself`;
      throw new KofnError('RESOURCE_EXHAUSTED', message, { retryAfterMs: RETRY_MS });
    }
    const lastId = request.headers['last-event-id'];
    reply.hijack();
    reply.raw.writeHead(200, {
      ...eventHeaders,
      'x-content-type-options': 'nosniff',
      'x-accel-buffering': 'no',
    });
    readers.add(reply.raw, typeof lastId === 'string' ? lastId : undefined);
    return reply;
  });

  if (faults === undefined) return;
  app.post<{ Body: FaultRequest }>('/kofn/v1/faults', { schema: { body: FAULT_BODY } }, async request => {
    const { worker, action } = request.body;
    await faults.act(worker, action);
    return { worker, action };
  });
}
