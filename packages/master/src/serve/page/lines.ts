/** What the page is told of workers and models, each made anew from what the master knows. */
import type { HealthLine, ModelLine, PlanLine, WorkerLine } from '@kofn/dashboard';
import type { WorkerView } from '../../fleet/fleet.js';
import type { LayerPlan } from '../../contract/plan.js';
import type { ServedModel } from '../inference/served.js';

export function workerLine({ index, address, state, reason, speed }: WorkerView): WorkerLine {
  const { macsPerSecond, rttMs, slowness, isStraggler, inTime } = speed;
  return {
    index,
    address,
    state,
    reason,
    macsPerSecond: figures(macsPerSecond),
    rttMs: figures(rttMs),
    slowness: figures(slowness),
    isStraggler,
    inTime: figures(inTime),
  };
}

export function modelLine({ name, version, labels, model }: ServedModel): ModelLine {
  const { plan, inputs, outputs } = model;
  return {
    name,
    version,
    labels: labels ?? null,
    inputs: inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    outputs: outputs.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    layers: plan.layers.map(planLine),
    segments: plan.segments.map(({ name, nodes, reason, workers }) => ({ name, nodes, reason, workers })),
  };
}

function planLine({ name, operator, reason, macs, weightBytes, outputShape, coded }: LayerPlan): PlanLine {
  return {
    name,
    operator,
    reason,
    macs: macs ?? null,
    weightBytes: weightBytes ?? null,
    outputShape: outputShape ?? null,
    coded:
      coded === undefined
        ? null
        : { code: coded.code, k: coded.k, r: coded.r, axis: coded.axis, shardBytes: coded.shardBytes },
  };
}

export function healthLine({ name, version, model }: ServedModel): HealthLine {
  const { margin, layers } = model.health;
  return {
    model: name,
    version,
    margin,
    layers: layers.map(({ layer, k, ready, margin, workers }) => ({ layer, k, ready, margin, workers })),
  };
}

/** Three are seen of it, and one that has not changed in them need not be sent again. */
function figures(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(3));
}
