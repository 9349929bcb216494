/** `connect`: opens the links to the workers and the master's own engine. */
import { randomInt } from 'node:crypto';
import { KofnError, seededRng, type Rng } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { connectChannel } from '@kofn/wire';
import { resolveConnectOptions, type ConnectOptions } from './contract/options.js';
import { Cluster, type MakeMetrics, type Open } from './fleet/cluster.js';
import { Connection } from './fleet/connection.js';
import { isItThere, type OpenChannel } from './fleet/link.js';
import { Processes } from './fleet/processes.js';
import { isGone } from './fleet/worker-state.js';

/** Loaded when somebody asks: most programs do not. */
const makeMetrics: MakeMetrics = async (cluster, models) =>
  (await import('./metrics/metrics.js')).clusterMetrics(cluster, models);

/** What a simulator puts in the place of ours; a cluster closes what it is given. */
export interface ClusterParts {
  readonly engine?: Engine;
  readonly openChannel?: OpenChannel;
  /** For the jitter of reconnects. */
  readonly rng?: Rng;
}

/**
 * Connects to the workers, and returns when each has answered or `connectDeadlineMs` have passed. Those that have not are connected to
 * again and again, like workers that were lost. Throws INVALID_ARGUMENT (options, or two addresses of one worker), UNAVAILABLE (fewer than `minWorkers` answer; names
 * the others, with the reasons), PROTOCOL (something else answers at an address), ENGINE (the master's own engine does not start),
 * CANCELLED.
 */
export async function connect(options: ConnectOptions, simulated: ClusterParts = {}): Promise<Cluster> {
  const resolved = resolveConnectOptions(options);
  const { rng = seededRng(randomInt(2 ** 32)), openChannel = connectChannel } = simulated;
  const parts: AsyncDisposable[] = [];
  const opened = async <T extends AsyncDisposable>(opening: Promise<T>): Promise<T> => {
    const part = await opening;
    parts.push(part);
    return part;
  };
  const about = { ...resolved, rng, openChannel, processes: new Processes() };
  const open: Open = (index, address, signal) => Connection.open(index, address, { ...about, signal });
  const opening = resolved.workers.map((address, index) => opened(open(index, address, resolved.signal)));
  const openingEngine = opened(
    simulated.engine === undefined ? createEngine(resolved.engine) : Promise.resolve(simulated.engine),
  );
  try {
    const [ownEngine, ...connections] = await Promise.all([openingEngine, ...opening]);
    requireAnswers(connections, resolved.minWorkers);
    return new Cluster({
      ...resolved,
      engine: ownEngine,
      engineThreads: resolved.threads,
      connections,
      open,
      makeMetrics,
    });
  } catch (error) {
    await Promise.allSettled([openingEngine, ...opening]);
    for (const part of parts) await part[Symbol.asyncDispose]();
    throw KofnError.from(error, 'UNAVAILABLE');
  }
}

/** Throws UNAVAILABLE. */
function requireAnswers(connections: readonly Connection[], minWorkers: number): void {
  const away = connections.filter(({ state }) => isGone(state));
  const answered = connections.length - away.length;
  if (answered >= minWorkers) return;
  const least = minWorkers === 1 ? '' : ` and minWorkers is ${minWorkers}`;
  const why = away.map(({ whyAway }) => whyAway).join('; ');
  const message = `${answered} of ${connections.length} workers answer${least}: ${why}. ${isItThere(away[0]!.address)}`;
  throw new KofnError('UNAVAILABLE', message);
}
