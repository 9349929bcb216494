/** What stands on the workers of one coded step: placement.ts puts it, heal.ts moves its blocks, dispatch.ts asks for it. */
import type { Code, DecodePlans } from '@kofn/encoder';
import type { LayerAudits } from '../verify/audit.js';
import type { DeployedLayer } from '../blocks/group-outputs.js';
import type { Hedge } from '../blocks/hedge.js';
import type { LocalBlocks, Resends } from '../blocks/recover.js';
import type { BlockPace } from '../fleet/speeds.js';
import type { Fingerprints } from '../verify/verification.js';

export interface PlacedShard {
  readonly name: string;
  readonly worker: number;
  /** The other worker that holds it, for a hedge. */
  readonly other: number | undefined;
}

/** Layers that share their input, and therefore their shards. */
export interface DeployedGroup {
  readonly layers: readonly DeployedLayer[];
  readonly code: Code;
  readonly plans: DecodePlans;
  /** Shard name and worker of each block; replaced as a whole when a block moves (heal.ts). */
  shards: readonly PlacedShard[];
  /** When another holder is asked for a late block; the shards then have one. */
  readonly hedge: Hedge | undefined;
  readonly pace: BlockPace;
  /** What replies are checked against; undefined when they are believed. */
  readonly fingerprints?: Fingerprints | undefined;
  /** Where replies are checked against each other behind the answer. */
  readonly audits?: LayerAudits | undefined;
  readonly local: LocalBlocks;
  readonly resends: Resends;
}
