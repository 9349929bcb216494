/** What `kofn fleet --json` prints. */
import type { Owner } from '@kofn/wire';
import type { StandingModel } from './fleet-models.js';

/** The shards that one version of a model has on one worker. */
interface OwnedShards extends Owner {
  readonly shards: number;
  readonly bytes: number;
}

export interface WorkerObject {
  readonly worker: number;
  readonly address: string;
  /** `unreachable` when it did not answer in time, for the reason given; `duplicate` when it is one that stands before it. */
  readonly state: 'ready' | 'engine stuck' | 'draining' | 'unreachable' | 'duplicate';
  readonly reason: string;
  readonly roundTripMs: number | null;
  /** To it; null as well when an upload takes hardly longer than a question. */
  readonly bytesPerSecond: number | null;
  /** In its engine, over the runs of coded blocks of the last five to ten minutes; null when there were none. */
  readonly macsPerSecond: number | null;
  readonly recentRuns: number | null;
  readonly engine: string | null;
  readonly cores: number | null;
  /** What the shards that are open now take. */
  readonly memoryUsedBytes: number | null;
  readonly memoryLimitBytes: number | null;
  readonly diskUsedBytes: number | null;
  readonly diskLimitBytes: number | null;
  readonly shards: number | null;
  readonly shardBytes: number | null;
  readonly owners: readonly OwnedShards[];
}

/** The object of `kofn fleet --json`. */
export interface FleetObject {
  readonly workers: readonly WorkerObject[];
  readonly models: readonly StandingModel[];
  /** What happened to workers lately, the latest last. */
  readonly events: readonly { readonly worker: number; readonly ageMs: number; readonly text: string }[];
}
