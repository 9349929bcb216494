/** `GET /metrics`: what the cluster counts, and what only the server in front of it knows. docs/metrics.md has all of it as a table. */
import { counterOf, gaugeOf } from '@kofn/wire/metrics';
import type { FastifyInstance } from 'fastify';
import { Histogram, Registry } from 'prom-client';
import { REQUEST_CODES } from '../metrics/request-metrics.js';
import type { EndedRequest, ServerView } from './inference/served.js';

const DURATIONS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Whatever a client asks for that is not served: names are not labels before they are known. */
const UNKNOWN = '';

export interface MetricsOptions {
  /** Requests that may wait, when more are refused. */
  readonly maxQueued?: number | undefined;
}

/** Counts requests from now on, until `app` closes. The route is open to whoever `app` lets in. */
export function registerMetrics(app: FastifyInstance, view: ServerView, options: MetricsOptions = {}): void {
  const { registry: server, stop } = serverMetrics(view, options);
  const registry = view.cluster.metrics().then(cluster => Registry.merge([cluster, server]));
  app.addHook('onReady', async () => void (await registry)); // the cluster counts before the first request
  app.addHook('onClose', () => Promise.resolve(stop()));
  app.get('/metrics', async (_request, reply) => {
    const all = await registry;
    return reply.type(all.contentType).send(await all.metrics());
  });
}

/** What only the server knows. Counts requests from now on, until `stop`. */
export function serverMetrics(
  view: ServerView,
  { maxQueued }: MetricsOptions = {},
): { readonly registry: Registry; readonly stop: () => void } {
  const registry = new Registry();
  const requests = new ServedRequests(registry, view);
  gaugeOf(registry, {
    name: 'kofn_server_requests_queued',
    help: 'Requests that wait for the cluster',
    read: () => [[{}, view.load().queued]],
  });
  gaugeOf(registry, {
    name: 'kofn_server_requests_queued_limit',
    help: 'Requests that may wait; more are refused',
    read: () => (maxQueued === undefined ? [] : [[{}, maxQueued]]),
  });
  gaugeOf(registry, {
    name: 'kofn_server_requests_running',
    help: 'Requests that the cluster works on',
    read: () => [[{}, view.load().running]],
  });
  return { registry, stop: view.onEnded(request => requests.ended(request)) };
}

class ServedRequests {
  readonly #view: ServerView;
  readonly #seconds: Histogram;
  readonly #queueSeconds: Histogram;
  /** By model, then code. */
  readonly #counts = new Map<string, Map<string, number>>();

  constructor(registry: Registry, view: ServerView) {
    this.#view = view;
    const registers = [registry];
    counterOf(registry, {
      name: 'kofn_server_requests_total',
      help: 'Requests of clients that have ended, by code: OK, or that of their error; of a model that is not served, without its name',
      labelNames: ['model', 'code'],
      read: () => {
        this.#forgetOthers(); // the first that a scrape reads
        return [...this.#counts].flatMap(([model, codes]) =>
          [...codes].map(([code, count]) => [{ model, code }, count] as const),
        );
      },
    });
    this.#seconds = new Histogram({
      name: 'kofn_server_request_duration_seconds',
      help: 'Time of answered requests in the server, the wait in its queue included',
      labelNames: ['model'],
      buckets: DURATIONS,
      registers,
    });
    this.#queueSeconds = new Histogram({
      name: 'kofn_server_queue_duration_seconds',
      help: 'Wait of answered requests in the queue of the server',
      labelNames: ['model'],
      buckets: DURATIONS,
      registers,
    });
  }

  ended({ model: asked, ms, queueMs, error }: EndedRequest): void {
    const model = this.#view.models().some(({ name }) => name === asked) ? asked : UNKNOWN;
    const codes = this.#codesOf(model);
    const code = error ?? 'OK';
    codes.set(code, (codes.get(code) ?? 0) + 1);
    if (error !== undefined) return;
    this.#seconds.observe({ model }, ms / 1000);
    this.#queueSeconds.observe({ model }, queueMs / 1000);
  }

  #codesOf(model: string): Map<string, number> {
    let codes = this.#counts.get(model);
    if (codes === undefined) {
      codes = new Map(REQUEST_CODES.map(known => [known as string, 0]));
      this.#counts.set(model, codes);
    }
    return codes;
  }

  #forgetOthers(): void {
    const served = new Set(this.#view.models().map(({ name }) => name));
    for (const model of served) this.#codesOf(model);
    for (const model of this.#counts.keys()) {
      if (served.has(model) || model === UNKNOWN) continue;
      this.#counts.delete(model);
      this.#seconds.remove({ model });
      this.#queueSeconds.remove({ model });
    }
  }
}
