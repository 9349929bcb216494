/**
 * One request through a deployed model: read this file as the map of the request path. A model is a list of steps (cut.ts
 * of @kofn/graph): a segment runs here in ONNX Runtime, or on two workers (replicated-segment.ts); a coded layer goes to the workers
 * (dispatch.ts).
 *
 * Invariants
 * 1. A step starts when its inputs are there, so independent parts run side by side; a value is dropped when its last
 *    reader has run.
 * 2. The first step that fails ends the others; nothing outlives the request.
 */
import { abortable, KofnError, openScope, type Signal, type Tensor, type Tensors } from '@kofn/core';
import type { Session } from '@kofn/engine';
import type { DeployedGroup } from './deployed-group.js';
import { dispatch } from './dispatch.js';
import type { ReplicatedSegment } from './replicated-segment.js';
import type { LayerReport, SegmentReport } from '../contract/report.js';
import { alongCriticalPath, localSpans, type Spans, type StepTimes } from '../contract/spans.js';
import type { RequestContext } from '../blocks/worker-call.js';

export type DeployedStep =
  | {
      readonly kind: 'segment';
      readonly inputs: readonly string[];
      readonly outputs: readonly string[];
      readonly session: Session;
    }
  | {
      readonly kind: 'replicated';
      readonly inputs: readonly string[];
      readonly outputs: readonly string[];
      readonly segment: ReplicatedSegment;
    }
  | {
      readonly kind: 'coded';
      readonly input: string;
      /** Of each layer of the group. */
      readonly outputs: readonly string[];
      readonly group: DeployedGroup;
    };

export interface StepsResult {
  readonly outputs: Tensors;
  readonly layers: LayerReport[];
  readonly segments: readonly SegmentReport[];
  readonly spans: Spans;
}

/** Runs `steps` in the order of their data. `outputs` are the values to return. */
export async function runSteps(
  steps: readonly DeployedStep[],
  inputs: Tensors,
  outputs: readonly string[],
  context: RequestContext,
): Promise<StepsResult> {
  using scope = openScope(context.clock, { parent: context.signal });
  const values = new Values(steps, outputs);
  for (const [name, value] of Object.entries(inputs)) values.put(name, value, 'caller');
  const reports = new Map<DeployedStep, readonly LayerReport[]>();
  const segments = new Map<DeployedStep, SegmentReport>();
  const times: StepTimes[] = [];

  const runStep = async (step: DeployedStep): Promise<void> => {
    if (step.kind === 'segment') {
      const feeds = await values.read(step.inputs, scope.signal);
      const start = context.clock.now();
      const transfer = step.inputs.every(name => values.isMovable(name));
      const produced = await abortable(step.session.run(feeds, { transfer }), scope.signal);
      values.release(step.inputs);
      const endedAt = context.clock.now();
      times.push({ inputs: step.inputs, outputs: step.outputs, endedAt, spans: localSpans(endedAt - start) });
      for (const name of step.outputs) values.put(name, produced[name]!, 'request');
    } else if (step.kind === 'replicated') {
      const feeds = await values.read(step.inputs, scope.signal);
      const answer = await step.segment.run(feeds, { ...context, signal: scope.signal });
      values.release(step.inputs);
      times.push({
        inputs: step.inputs,
        outputs: step.outputs,
        endedAt: context.clock.now(),
        spans: answer.spans,
      });
      for (const name of step.outputs) values.put(name, answer.outputs[name]!, 'request');
      segments.set(step, answer.report);
    } else {
      const { [step.input]: input } = await values.read([step.input], scope.signal);
      const layers = await dispatch(step.group, input!, { ...context, signal: scope.signal });
      values.release([step.input]);
      const endedAt = context.clock.now();
      times.push({ inputs: [step.input], outputs: step.outputs, endedAt, spans: layers[0]!.report.spans });
      step.outputs.forEach((name, i) => values.put(name, layers[i]!.output, 'request'));
      reports.set(
        step,
        layers.map(({ report }) => report),
      );
    }
  };

  const running = steps.map(async step => {
    try {
      await runStep(step);
    } catch (error) {
      scope.abort(KofnError.from(error));
      throw error;
    }
  });
  const results = await Promise.allSettled(running);
  const failures = results.flatMap(result => (result.status === 'rejected' ? [KofnError.from(result.reason)] : []));
  if (failures.length > 0) {
    // The scope's reason is the first failure and ended the other steps; the one that says more of it has it as its cause.
    const first = KofnError.from(scope.signal.reason);
    throw failures.find(({ cause }) => cause === first) ?? first;
  }
  return {
    outputs: await values.read(outputs, scope.signal),
    layers: steps.flatMap(step => reports.get(step) ?? []),
    segments: segments.size === 0 ? NO_SEGMENTS : steps.flatMap(step => segments.get(step) ?? []),
    spans: alongCriticalPath(times, outputs),
  };
}

const NO_SEGMENTS: readonly SegmentReport[] = [];

/** The tensors of one request by value name, each with the number of readers it still has. */
class Values {
  readonly #slots = new Map<string, Slot>();

  constructor(steps: readonly DeployedStep[], outputs: readonly string[]) {
    const reads = steps.flatMap(inputsOf);
    for (const name of [...reads, ...outputs]) this.#slot(name).readers++;
    for (const step of steps) {
      if (step.kind !== 'segment') for (const name of inputsOf(step)) this.#slot(name).isSent = true;
    }
  }

  put(name: string, value: Tensor, owner: 'caller' | 'request'): void {
    const slot = this.#slot(name);
    slot.owner = owner;
    slot.settle(value);
  }

  async read(names: readonly string[], signal: Signal): Promise<Tensors> {
    const entries = names.map(async name => [name, await abortable(this.#slot(name).value, signal)] as const);
    return Object.fromEntries(await Promise.all(entries));
  }

  /**
   * Whether its one remaining reader may take the buffer: the caller's own input is never taken, nor what is sent to workers, for the
   * frame to one that stalls is made of it later than the answer.
   */
  isMovable(name: string): boolean {
    const slot = this.#slot(name);
    return slot.owner === 'request' && slot.readers === 1 && !slot.isSent;
  }

  release(names: readonly string[]): void {
    for (const name of names) if (--this.#slot(name).readers === 0) this.#slots.delete(name);
  }

  #slot(name: string): Slot {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      let settle!: (value: Tensor) => void;
      const value = new Promise<Tensor>(resolve => (settle = resolve));
      slot = { readers: 0, owner: 'request', isSent: false, value, settle };
      this.#slots.set(name, slot);
    }
    return slot;
  }
}

function inputsOf(step: DeployedStep): readonly string[] {
  return step.kind === 'coded' ? [step.input] : step.inputs;
}

interface Slot {
  readers: number;
  owner: 'caller' | 'request';
  /** A step that workers run reads it. */
  isSent: boolean;
  readonly value: Promise<Tensor>;
  readonly settle: (value: Tensor) => void;
}
