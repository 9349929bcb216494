/**
 * The machines of a run: what cells do with them, whether they are processes here (local-fleet.ts) or a real cluster
 * (remote-fleet.ts). Workers are numbered from 0; a cell uses the first n.
 */
import type { DispatchHooks } from '@kofn/master';
import type { LinkConfig } from '../config/config-schema.js';
import type { FaultEvent } from './fault-plan.js';

/** What a worker's device is for a cell. */
export type DeviceSetup =
  | { readonly kind: 'native' }
  | { readonly kind: 'stated'; readonly gflops: number; readonly overheadMs: number; readonly arithmetic: boolean }
  | { readonly kind: 'quota'; readonly cpus: number };

export interface Usage {
  /** Processor time of the workers, whichever processes they were. */
  readonly cpuMs: number;
  /** Time that their engines were busy, waiting out a stated device included. */
  readonly busyMs: number;
}

export interface Traffic {
  readonly sent: number;
  readonly received: number;
}

export interface BenchFleet extends AsyncDisposable {
  /** What the master connects to. */
  readonly addresses: readonly string[];
  readonly hooks: DispatchHooks;
  /** Of a real cluster; none for local workers. */
  readonly hosts: readonly string[];
  /** Devices as a cell has them, no fault, links without shape: for its deployment. Counters begin anew. */
  prepare(workers: number, device: DeviceSetup, seed: number): Promise<void>;
  /** The links as a cell has them, from now on. */
  shape(link: LinkConfig, seed: number): Promise<void>;
  /** Brings a fault about, or arms it where it comes mid-request. */
  begin(event: FaultEvent): Promise<void>;
  /** After its request: whether a fault that aims at one hit it; null where it does not aim, or that is not to be seen. */
  settle(event: FaultEvent): Promise<boolean | null>;
  /** Undoes it; the worker may need a while until it is ready. */
  end(event: FaultEvent): Promise<void>;
  /** Since `prepare`. */
  usage(): Promise<Usage>;
  /** Bytes through the links since `shape`; null where they are not ours. */
  traffic(): Promise<Traffic | null>;
}
