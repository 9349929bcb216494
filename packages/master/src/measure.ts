/**
 * Measures what `layers: 'auto'` and `planModel` decide by: the round trip and rate of each link, the speed of each
 * worker beside the master's own, and how long each layer takes here.
 */
import { float32, isKofnError, type Clock, type Shape, type Signal } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { imageOfFiles, layerModel, shardInput, shardModel, type LinearLayer } from '@kofn/graph';
import { EncodedInputs, shardName } from '@kofn/wire';
import type { Cluster } from './cluster.js';
import type { Connection } from './connection.js';
import { openLocally } from './local-session.js';
import type { Speeds } from './plan.js';

const RATE_PROBE_FLOATS = 2 ** 18;
const ROUNDS = 5;

/** A convolution 3x3 of 128 to 128 channels on 14x14: 28.9 million multiply-accumulates over 100 KB each way. */
const CALIBRATION = {
  units: 128,
  fanIn: 128 * 9,
  conv: { groups: 1, kernel: [3, 3], strides: [1, 1], dilations: [1, 1], pads: [1, 1, 1, 1], autoPad: 'NOTSET' },
} as const;
const CALIBRATION_INPUT = [1, 128, 14, 14] as const;
const CALIBRATION_FLOATS = 128 * 14 * 14;
const CALIBRATION_OPERATIONS = 2 * CALIBRATION_FLOATS * CALIBRATION.fanIn;

/** Speeds of the slowest of `workers` and their links, measured now; the worker's share of the time is what remains after transfer. */
export async function measureSpeeds(
  cluster: Cluster,
  workers: readonly Connection[],
  signal: Signal | undefined,
): Promise<Speeds> {
  const { weights, units } = {
    weights: new Float32Array(CALIBRATION.units * CALIBRATION.fanIn).fill(0.01),
    units: 128,
  };
  const files = shardModel([{ layer: { ...CALIBRATION, operator: 'Conv' }, weights, units }]);
  const session = await openLocally(cluster.engine, imageOfFiles(files), cluster.engineThreads);
  let localMs: number;
  try {
    localMs = await medianRunMs(session, CALIBRATION_INPUT, cluster.clock);
  } finally {
    await session[Symbol.asyncDispose]();
  }
  const name = shardName(files.model, files.weights);
  const owner = { cluster: cluster.id, model: 'speed of the workers', version: 0 };
  const links = [];
  for (const connection of workers) {
    const link = await measureLink(connection, cluster.clock, signal);
    const bytes = files.model.byteLength + files.weights.byteLength;
    await connection.ask(client => client.put({ name, ...files }, { signal, owner }), { signal, bytes });
    try {
      const inputs = new EncodedInputs({ x: zeros(CALIBRATION_INPUT) });
      const call = { signal, bytes: 2 * 4 * CALIBRATION_FLOATS };
      const callMs = await medianMs(cluster.clock, () => connection.infer(name, inputs, call));
      const transferMs = (2 * 4 * CALIBRATION_FLOATS * 8) / (link.megabitsPerSecond * 1000);
      links.push({ ...link, workerMs: Math.max(0.1 * callMs, callMs - link.roundTripMs - transferMs) });
    } finally {
      await connection.ask(client => client.remove([name], { signal, owner }), { signal });
    }
  }
  return {
    source: 'measured',
    roundTripMs: Math.max(...links.map(link => link.roundTripMs)),
    megabitsPerSecond: Math.min(...links.map(link => link.megabitsPerSecond)),
    workerGflops: CALIBRATION_OPERATIONS / Math.max(...links.map(link => link.workerMs)) / 1e6,
    localGflops: CALIBRATION_OPERATIONS / localMs / 1e6,
  };
}

/** Milliseconds of the whole layer on the master for an input of shape `input`: the median of five after a warm-up. */
export async function measureLayerMs(
  engine: Engine,
  threads: number,
  layer: LinearLayer,
  input: Shape,
  clock: Clock,
): Promise<number> {
  await using session = await openLocally(engine, imageOfFiles(layerModel(layer)), threads);
  return await medianRunMs(session, shardInput(layer, zeros(input)).shape, clock);
}

async function measureLink(
  connection: Connection,
  clock: Clock,
  signal: Signal | undefined,
): Promise<{ roundTripMs: number; megabitsPerSecond: number }> {
  const roundTripMs = await medianMs(clock, () => connection.ask(client => client.live({ signal }), { signal }));
  // A request for a shard that nobody has is refused once it is read whole: the time of the upload and nothing else.
  const probe = new EncodedInputs({ x: float32([RATE_PROBE_FLOATS], new Float32Array(RATE_PROBE_FLOATS)) });
  const uploadMs = await medianMs(clock, async () => {
    try {
      await connection.infer('kofn-rate-probe', probe, { signal, bytes: 4 * RATE_PROBE_FLOATS });
    } catch (error) {
      if (!isKofnError(error, 'NOT_FOUND')) throw error;
    }
  });
  const transferMs = Math.max(0.01, uploadMs - roundTripMs);
  return { roundTripMs, megabitsPerSecond: (4 * RATE_PROBE_FLOATS * 8) / (transferMs * 1000) };
}

function medianRunMs(session: Session, input: Shape, clock: Clock): Promise<number> {
  return medianMs(clock, () => session.run({ x: zeros(input) }));
}

async function medianMs(clock: Clock, work: () => Promise<unknown>): Promise<number> {
  await work();
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = clock.now();
    await work();
    times.push(clock.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!;
}

function zeros(shape: Shape) {
  return float32(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)));
}
