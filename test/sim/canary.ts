/** A planted bug: production code changed at run time, in a test, to prove that a checker finds it. */
import type { Clock } from '@kofn/core';
import type { Cluster, CodedModel } from '@kofn/master';
import type { WorkerServer } from '@kofn/worker';

export interface Canary {
  readonly name: string;
  /** Changes code that has no instance to change; gives what undoes it. */
  apply?(): () => void;
  masterClock?(clock: Clock): Clock;
  cluster?(cluster: Cluster): void;
  model?(model: CodedModel): void;
  worker?(server: WorkerServer): void;
}
