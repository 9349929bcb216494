/**
 * A worker in this process: data directory, engine, server and port, opened in that order and closed in the other.
 * main.ts is the command around it.
 *
 * Invariants
 * 1. What fails half-way leaves nothing open.
 * 2. `close` takes no new work, answers what was taken, and ends within the grace whatever peers do.
 */
import { randomUUID } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { abortable, openScope, systemClock, type Clock } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { followHealth, listenGrpc, type Listening } from '@kofn/wire';
import { Faults } from './faults/faults.js';
import { FsBlobStore } from './store/fs-blob-store.js';
import type { Logger } from './process/logs.js';
import { serveMetrics } from './monitoring/metrics-endpoint.js';
import { resolveOptions, type WorkerOptions } from './options.js';
import { WorkerServer } from './server/server.js';
import { VERSION } from './process/version.js';

/** Less than the 30 s that Kubernetes and systemd leave between SIGTERM and SIGKILL at least. */
const GRACE_MS = 20_000;

export interface RunningWorker extends AsyncDisposable {
  /** `host:port` as bound. */
  readonly address: string;
  readonly host: string;
  readonly port: number;
  readonly dataDir: string;
  /** Name and version of the engine. */
  readonly engine: string;
  readonly version: string;
  readonly server: WorkerServer;
  readonly allowsFaults: boolean;
  /** `host:port` of `GET /metrics` as bound, when it was asked for. */
  readonly metricsAddress: string | undefined;
  /** Drains and stops; the same promise however often it is called. */
  close(): Promise<void>;
}

/**
 * Starts a worker. Throws INVALID_ARGUMENT (an option, or a data directory in use), STORAGE, ENGINE, ADDRESS_IN_USE.
 * `parts` replaces the engine (which the worker then closes) and the clock, and says who is told what happens.
 */
export async function startWorker(
  options: WorkerOptions = {},
  parts: { engine?: Engine; clock?: Clock; logger?: Logger | undefined } = {},
): Promise<RunningWorker> {
  const resolved = resolveOptions(options);
  const { host, port, maxMessageBytes } = resolved;
  const { clock = systemClock, logger } = parts;
  const opened: AsyncDisposable[] = [];
  const closeAll = async () => {
    for (const part of opened.splice(0).reverse()) await part[Symbol.asyncDispose]();
  };
  try {
    const blobs = await FsBlobStore.open(resolved.dataDir);
    opened.push(blobs);
    const engine = parts.engine ?? (await createEngine(resolved.engine));
    opened.push(engine);
    const server = await WorkerServer.open({
      engine,
      blobs,
      clock,
      workerId: await blobs.remember('worker-id', randomUUID),
      processId: randomUUID(),
      version: VERSION,
      threads: resolved.threads,
      memoryLimitBytes: resolved.maxMemoryBytes,
      diskLimitBytes: resolved.maxDiskBytes ?? (await diskBytes(blobs)),
      maxQueue: resolved.maxQueue,
      cores: resolved.cores,
      faults: resolved.allowFaults ? new Faults(clock) : undefined,
      logger,
    });
    opened.push(server);
    const endpoint = resolved.metrics && (await serveMetrics(resolved.metrics, server.metrics, blobs.dataDir));
    if (endpoint !== undefined) opened.push(endpoint); // to the end: it tells that the worker drains
    const listening = await listenGrpc(server.handlers, { host, port, maxMessageBytes, clock });
    opened.push(followHealth(listening, readiness(server), clock));
    let closed: Promise<void> | undefined;
    const close = () => (closed ??= shutDown(server, listening, clock).finally(closeAll));
    return {
      address: listening.address,
      host,
      port: listening.port,
      dataDir: resolved.dataDir,
      engine: `${engine.name} ${engine.version}`,
      version: VERSION,
      server,
      allowsFaults: resolved.allowFaults,
      metricsAddress: endpoint?.address,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Whether it is ready, each change said. */
function readiness(server: WorkerServer): () => boolean {
  let wasReady = true;
  return () => {
    const { isReady } = server;
    if (isReady && !wasReady) server.logger?.info('the engine runs again');
    else if (!isReady && wasReady) server.logger?.warn('the engine is stuck in a run: no calls until it has ended');
    wasReady = isReady;
    return isReady;
  };
}

async function shutDown(server: WorkerServer, listening: Listening, clock: Clock): Promise<void> {
  listening.setServing(false);
  const end = clock.now() + GRACE_MS;
  using grace = openScope(clock, { deadlineMs: GRACE_MS, what: 'shutdown' });
  await abortable(server.drain(), grace.signal).catch(() => undefined); // a peer that reads no replies: cut off below
  await listening.close(Math.max(0, end - clock.now()));
}

/** What the shards may take when nobody says: what they take and what is free beside them. */
async function diskBytes(blobs: FsBlobStore): Promise<number> {
  const { bavail, bsize } = await statfs(blobs.dataDir);
  const held = (await blobs.list()).reduce((sum, blob) => sum + blob.modelBytes + blob.weightsBytes, 0);
  return bavail * bsize + held;
}
