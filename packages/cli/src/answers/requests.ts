/** Request after request through a deployed model, one at a time, with the kills that are planned for them. */
import { KofnError, throwIfAborted, type Tensors } from '@kofn/core';
import type { CodedModel, RunResult } from '@kofn/master';
import type { KillPlan } from '../workers/kill-plan.js';

export interface RequestOptions {
  readonly count: number;
  readonly inputs: (request: number) => Tensors;
  readonly deadlineMs?: number | undefined;
  readonly signal: AbortSignal;
  readonly kills: KillPlan;
}

/** What became of a request: its answer, or why there is none. */
export type Outcome =
  { readonly request: number; readonly result: RunResult } | { readonly request: number; readonly error: KofnError };

/** Ends early only with the reason of `signal`: a request that fails is an outcome. */
export async function* runRequests(model: CodedModel, options: RequestOptions): AsyncGenerator<Outcome> {
  const { count, inputs, deadlineMs, signal, kills } = options;
  const limits = { signal, ...(deadlineMs === undefined ? {} : { deadlineMs }) };
  for (let request = 0; request < count; request++) {
    let outcome: Outcome;
    try {
      outcome = { request, result: await model.run(inputs(request), limits) };
    } catch (error) {
      throwIfAborted(signal);
      outcome = { request, error: KofnError.from(error) };
    }
    kills.requestEnded(request, 'result' in outcome ? outcome.result.report : undefined);
    yield outcome;
  }
}
