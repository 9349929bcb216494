/** The fleet: the workers as the master sees them now. A snapshot is immutable and replaced on change. */
import type { Connection } from './connection.js';

export interface WorkerView {
  readonly index: number;
  readonly address: string;
  readonly state: 'ready' | 'lost';
  readonly engine: string;
  readonly cores: number;
}

export type Fleet = readonly WorkerView[];

export function snapshot(connections: readonly Connection[]): Fleet {
  return Object.freeze(
    connections.map(({ index, address, state, inventory }) =>
      Object.freeze({ index, address, state, engine: inventory.engine, cores: inventory.cores }),
    ),
  );
}
