/** A model on a fleet in one of the strategies (strategies.ts), ready to be asked. */
import type { Tensors } from '@kofn/core';
import { codedModel, type Cluster, type ModelOptions, type RunResult } from '@kofn/master';
import type { Cell } from '../config/config.js';
import { FailoverModel } from './failover.js';
import type { Strategy } from './strategies.js';
import type { OpenWorkload } from './workload.js';

export interface ServedModel extends AsyncDisposable {
  run(inputs: Tensors, options: { deadlineMs: number; signal: AbortSignal }): Promise<RunResult>;
}

/** Deploys `workload` as `strategy` has it. Throws as `codedModel`. */
export async function serve(
  cluster: Cluster,
  { strategy, cell, workload, signal }: { strategy: Strategy; cell: Cell; workload: OpenWorkload; signal: AbortSignal },
): Promise<ServedModel> {
  const options: ModelOptions & { cluster: Cluster } = {
    cluster,
    ...strategy.options,
    layers: workload.layers,
    workers: Array.from({ length: strategy.n }, (_, worker) => worker),
    sampleInputs: workload.inputs(0),
    signal,
  };
  if (strategy.isFailover) return FailoverModel.open(workload.modelPath, options, cell.failover.reloadMs);
  return codedModel(workload.modelPath, options);
}
