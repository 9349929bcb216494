/**
 * A server in this process: ports, models, gRPC and HTTP, opened in that order and closed in the other. `kofn serve` is the command
 * around it. Read it as the map of this folder: server.ts has what becomes of a request.
 *
 * Invariants
 * 1. What fails half-way leaves nothing open.
 * 2. Ports are taken before anything is sent to workers; until the models stand the server is live and not ready.
 * 3. `drain` takes no new work, answers what was taken, and ends within its grace whatever clients do. The cluster is its owner's.
 */
import type { AddressInfo } from 'node:net';
import { abortable, KofnError, openScope, type Signal } from '@kofn/core';
import {
  DEFAULT_MAX_MESSAGE_BYTES,
  followHealth,
  formatAddress,
  listenGrpc,
  type ListenAddress,
  type Listening,
} from '@kofn/wire';
import type { FastifyInstance } from 'fastify';
import type { Cluster } from '../fleet/cluster.js';
import { requireRange, requireWhole } from '../contract/options.js';
import { Access, checkAddress, type AccessOptions } from './http/access.js';
import { grpcHandlers } from './inference/grpc.js';
import { createHttp } from './http/http.js';
import { registerMetrics } from './metrics.js';
import { ModelRepository, type LoadProgress, type ModelFile } from './inference/repository.js';
import { registerRest } from './http/rest.js';
import { InferenceServer, type LimitOptions } from './inference/server.js';

/** Less than the 30 s that Kubernetes and systemd leave between SIGTERM and SIGKILL. */
const GRACE_MS = 20_000;

export interface ServerOptions extends LimitOptions, AccessOptions {
  readonly cluster: Cluster;
  readonly models: readonly ModelFile[];
  /** Where gRPC listens; undefined for nowhere. */
  readonly grpc?: ListenAddress | undefined;
  readonly http?: ListenAddress | undefined;
  /** The largest message and body. Default 256 MiB. */
  readonly maxMessageBytes?: number | undefined;
  /** Connections at once, of each of gRPC and HTTP. Default 4,096. */
  readonly maxConnections?: number | undefined;
  /** The longest that an HTTP client may take to send a request. Default 60,000. */
  readonly clientTimeoutMs?: number | undefined;
  /** What clients are told. */
  readonly version: string;
  readonly onProgress?: LoadProgress | undefined;
  /** Is told what its owner should know, and may have meant: that it is open to the network. */
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Ends the start. */
  readonly signal?: Signal | undefined;
}

export interface RunningServer extends AsyncDisposable {
  readonly server: InferenceServer;
  /** `host:port` as bound. */
  readonly grpcAddress: string | undefined;
  readonly httpAddress: string | undefined;
  /** Refuses what is new, answers what was taken, `graceMs` at most (default 20,000), and closes. Always the same promise. */
  drain(options?: { readonly graceMs?: number }): Promise<void>;
}

/**
 * Starts a server and loads its models. Throws INVALID_ARGUMENT (an option), ADDRESS_IN_USE, and as `codedModel`. `prepare` may add
 * routes of its own before the server listens.
 */
export async function startServer(
  options: ServerOptions,
  prepare: (app: FastifyInstance, server: InferenceServer) => void = () => undefined,
): Promise<RunningServer> {
  const { cluster, models, grpc, http, tls, version, signal } = options;
  const { maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES, maxConnections = 4_096, clientTimeoutMs = 60_000 } = options;
  requireWhole('maxMessageBytes', maxMessageBytes, 1024, 2 ** 31 - 1);
  requireWhole('maxConnections', maxConnections, 1, 2 ** 31 - 1);
  requireRange('clientTimeoutMs', clientTimeoutMs, 100, 2 ** 31 - 1);
  if (grpc === undefined && http === undefined) {
    throw new KofnError('INVALID_ARGUMENT', 'the server has nowhere to listen; give --grpc or --http');
  }
  const access = new Access(options);
  const warnings = Object.entries({ '--grpc': grpc, '--http': http }).flatMap(([option, address]) =>
    address === undefined ? [] : (checkAddress(option, address, options) ?? []),
  );
  const repository = new ModelRepository(cluster, models, options.onProgress);
  const server = new InferenceServer(cluster, repository, options);
  for (const warning of warnings) options.onWarning?.(warning);

  const listeners: Listener[] = [];
  const closeAll = async (graceMs: number) => void (await Promise.all(listeners.map(each => each.close(graceMs))));
  try {
    if (grpc !== undefined) {
      const authorize = access.asksForToken ? access.allows : undefined;
      const about = { ...grpc, maxMessageBytes, maxConnections, tls, authorize, clock: cluster.clock };
      const listening = await naming('--grpc', listenGrpc(grpcHandlers(server, version), about));
      listeners.push(grpcListener(listening, server));
    }
    if (http !== undefined) {
      const about = {
        host: http.host,
        access,
        tls,
        maxMessageBytes,
        maxConnections,
        clientTimeoutMs,
        deadlineMs: server.deadlineMs,
      };
      const app = createHttp(about);
      registerRest(app, server, version);
      registerMetrics(app, server, { maxQueued: server.maxQueue });
      prepare(app, server);
      listeners.push(await naming('--http', listenHttp(app, http, cluster)));
    }
    await repository.loadAll(signal);
  } catch (error) {
    await closeAll(0);
    throw error;
  }
  const addressOf = (kind: Listener['kind']) => listeners.find(each => each.kind === kind)?.address;
  let drained: Promise<void> | undefined;
  const drain = ({ graceMs = GRACE_MS }: { readonly graceMs?: number } = {}) =>
    (drained ??= (async () => {
      const end = cluster.clock.now() + graceMs;
      using grace = openScope(cluster.clock, { deadlineMs: graceMs, what: 'shutdown' });
      await abortable(server.drain(), grace.signal).catch(() => undefined); // what is left is cut off below
      await closeAll(Math.max(0, end - cluster.clock.now()));
    })());
  return {
    server,
    grpcAddress: addressOf('grpc'),
    httpAddress: addressOf('http'),
    drain,
    [Symbol.asyncDispose]: () => drain({ graceMs: 0 }),
  };
}

interface Listener {
  readonly kind: 'grpc' | 'http';
  readonly address: string;
  close(graceMs: number): Promise<void>;
}

function grpcListener(listening: Listening, server: InferenceServer): Listener {
  const { clock } = server.cluster;
  const health = followHealth(listening, () => server.isReady, clock);
  server.shutdown.addEventListener('abort', () => listening.setServing(false), { once: true });
  listening.setServing(server.isReady);
  return {
    kind: 'grpc',
    address: listening.address,
    async close(graceMs) {
      await health[Symbol.asyncDispose]();
      await listening.close(graceMs);
    },
  };
}

async function listenHttp(app: FastifyInstance, { host, port }: ListenAddress, { clock }: Cluster): Promise<Listener> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    const { code, message } = error as NodeJS.ErrnoException;
    const where = formatAddress(host, port);
    if (code === 'EADDRINUSE') {
      const advice = 'another process listens there; stop it or choose another port (0 takes a free one)';
      throw new KofnError('ADDRESS_IN_USE', `${where} is taken: ${advice}`, { cause: error });
    }
    if (code === undefined || error instanceof KofnError) throw error;
    throw new KofnError('INVALID_ARGUMENT', `cannot listen on ${where}: ${message}`, { cause: error });
  }
  const bound = app.server.address() as AddressInfo;
  return {
    kind: 'http',
    address: formatAddress(host, bound.port),
    async close(graceMs) {
      const timer = clock.setTimer(() => app.server.closeAllConnections(), graceMs);
      await app.close();
      timer.cancel();
    },
  };
}

/** Has an error say which option it is about. */
async function naming<T>(option: string, listening: Promise<T>): Promise<T> {
  try {
    return await listening;
  } catch (error) {
    const { code, message } = KofnError.from(error);
    throw new KofnError(code, `${option}: ${message}`, { cause: error });
  }
}
