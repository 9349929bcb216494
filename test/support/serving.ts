/** A server of models in this process, on kept workers, and what a client says to it over HTTP. */
import type { IncomingHttpHeaders } from 'node:http';
import { startServer, type RunningServer, type ServerOptions } from '@kofn/master/serve';
import { connect, type Cluster } from 'kofn';
import { keptWorkers, type KeptWorkers } from './kept-workers.js';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Of a JSON body. */
  readonly json: Record<string, unknown>;
}

export interface Serving extends AsyncDisposable {
  readonly running: RunningServer;
  readonly cluster: Cluster;
  readonly workers: KeptWorkers;
  readonly grpc: string;
  readonly http: string;
  get(path: string): Promise<Reply>;
  /** With `body` as JSON where it is no bytes. */
  post(path: string, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal): Promise<Reply>;
}

const ANY = { host: '127.0.0.1', port: 0 };

export async function serving(
  options: Pick<ServerOptions, 'models'> & Partial<ServerOptions>,
  count = 3,
  prepare?: Parameters<typeof startServer>[1],
): Promise<Serving> {
  const workers = await keptWorkers(count);
  // Nobody is lost for being silent: tests stop workers to hold requests.
  const cluster = await connect({ workers: workers.addresses, silenceMs: 60_000 });
  try {
    const running = await startServer({ cluster, version: '0.0.0', grpc: ANY, http: ANY, ...options }, prepare);
    const http = running.httpAddress!;
    return {
      running,
      cluster,
      workers,
      grpc: running.grpcAddress ?? '',
      http,
      get: path => request(`http://${http}${path}`, {}),
      post: (path, body, headers = {}, signal) =>
        request(`http://${http}${path}`, {
          method: 'POST',
          headers,
          ...(signal === undefined ? {} : { signal }),
          ...(body === undefined ? {} : { body: Buffer.isBuffer(body) ? body : JSON.stringify(body) }),
        }),
      async [Symbol.asyncDispose]() {
        await running[Symbol.asyncDispose]();
        for (const { model } of running.server.models()) await model.close();
        await cluster.close();
        await workers[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await cluster.close();
    await workers[Symbol.asyncDispose]();
    throw error;
  }
}

async function request(url: string, init: RequestInit): Promise<Reply> {
  const response = await fetch(url, init);
  const body = Buffer.from(await response.arrayBuffer());
  const isJson = response.headers.get('content-type')?.startsWith('application/json') === true;
  const json = isJson ? (JSON.parse(body.toString()) as Record<string, unknown>) : {};
  return { status: response.status, headers: Object.fromEntries(response.headers), body, json };
}
