/**
 * What `layers: 'auto'` and `planModel` decide by: the round trip and rate of each link, the speed of each worker beside the master's
 * own, as it is known or else measured now, and how long each layer takes here.
 */
import { float32, isKofnError, type Clock, type Shape, type Signal } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { imageOfFiles, layerModel, shardInput, shardModel, type LinearLayer } from '@kofn/graph';
import { EncodedInputs, shardName, type ShardFiles } from '@kofn/wire';
import type { Cluster } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { openLocally } from '../blocks/local-session.js';
import type { ResolvedCode } from '../contract/options.js';
import type { Speeds } from '../contract/plan.js';

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
/** There and back. */
const CALIBRATION_BYTES = 2 * 4 * CALIBRATION_FLOATS;
const CALIBRATION_OPERATIONS = 2 * CALIBRATION_FLOATS * CALIBRATION.fanIn;

/**
 * Speeds of the slowest of those of `workers` that `code` needs, the fastest of them. What is known of a worker from its replies of
 * the last minutes, or an earlier measurement, is not measured again (speeds.ts).
 */
export async function measureSpeeds(
  cluster: Cluster,
  workers: readonly Connection[],
  code: ResolvedCode,
  signal: Signal | undefined,
): Promise<Speeds> {
  const { clock } = cluster;
  const calibration = await Calibration.open(cluster);
  const measured: WorkerFigures[] = [];
  for (const connection of workers) {
    const known = connection.speed.known;
    const roundTripMs = known.rttMs ?? (await measureRoundTrip(connection, clock, signal));
    const bytesPerMs = known.uploadBytesPerMs ?? (await measureUpload(connection, roundTripMs, clock, signal));
    const link = { roundTripMs, bytesPerMs };
    const relative = known.relative ?? (await calibration.measure(connection, link, signal));
    measured.push({ ...link, workerMs: relative * calibration.localMs });
  }
  // Of copies any one does; which of them answer first is not known beforehand.
  const needed = code.code === 'replication' ? measured.length : code.k;
  const used = fastest(measured, needed);
  return {
    source: 'measured',
    roundTripMs: Math.max(...used.map(({ roundTripMs }) => roundTripMs)),
    megabitsPerSecond: (Math.min(...used.map(({ bytesPerMs }) => bytesPerMs)) * 8) / 1000,
    workerGflops: CALIBRATION_OPERATIONS / Math.max(...used.map(({ workerMs }) => workerMs)) / 1e6,
    localGflops: CALIBRATION_OPERATIONS / calibration.localMs / 1e6,
  };
}

interface LinkFigures {
  readonly roundTripMs: number;
  readonly bytesPerMs: number;
}

interface WorkerFigures extends LinkFigures {
  /** For the calibration's layer. */
  readonly workerMs: number;
}

/** The `count` that answer a call like the calibration's first. */
function fastest(figures: readonly WorkerFigures[], count: number): WorkerFigures[] {
  const callMs = ({ roundTripMs, bytesPerMs, workerMs }: WorkerFigures) =>
    roundTripMs + CALIBRATION_BYTES / bytesPerMs + workerMs;
  return [...figures].sort((a, b) => callMs(a) - callMs(b)).slice(0, count);
}

/** A layer that the master and a worker run alike. */
class Calibration {
  /** What the master takes for it. */
  readonly localMs: number;
  readonly #cluster: Cluster;
  readonly #shard: ShardFiles;

  private constructor(cluster: Cluster, shard: ShardFiles, localMs: number) {
    this.#cluster = cluster;
    this.#shard = shard;
    this.localMs = localMs;
  }

  static async open(cluster: Cluster): Promise<Calibration> {
    const weights = new Float32Array(CALIBRATION.units * CALIBRATION.fanIn).fill(0.01);
    const { units } = CALIBRATION;
    const files = shardModel([{ layer: { ...CALIBRATION, operator: 'Conv' }, weights, units }]);
    await using session = await openLocally(cluster.engine, imageOfFiles(files), cluster.engineThreads);
    const localMs = await medianRunMs(session, CALIBRATION_INPUT, cluster.clock);
    return new Calibration(cluster, { name: shardName(files.model, files.weights), ...files }, localMs);
  }

  /**
   * So many times as long as the master a worker takes for it: what it says itself that its engine took, or what remains of a call
   * once it has travelled.
   */
  async measure(connection: Connection, link: LinkFigures, signal: Signal | undefined): Promise<number> {
    const { clock, id } = this.#cluster;
    const { name, model, weights } = this.#shard;
    const owner = { cluster: id, model: 'speed of the workers', version: 0 };
    const bytes = model.byteLength + weights.byteLength;
    await connection.ask(client => client.put(this.#shard, { signal, owner }), { signal, bytes });
    try {
      const inputs = new EncodedInputs({ x: zeros(CALIBRATION_INPUT) });
      const call = { signal, bytes: CALIBRATION_BYTES };
      const workerMs = await median(async () => {
        const start = clock.now();
        const { times } = await connection.infer(name, inputs, call);
        const callMs = clock.now() - start;
        const travelMs = link.roundTripMs + CALIBRATION_BYTES / link.bytesPerMs;
        return times?.engineMs ?? Math.max(0.1 * callMs, callMs - travelMs);
      });
      const relative = workerMs / this.localMs;
      connection.speed.calibrated(relative);
      return relative;
    } finally {
      await connection.ask(client => client.remove([name], { signal, owner }), { signal });
    }
  }
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

async function measureRoundTrip(connection: Connection, clock: Clock, signal: Signal | undefined): Promise<number> {
  const ms = await medianMs(clock, () => connection.ask(client => client.live({ signal }), { signal }));
  connection.speed.probed(ms);
  return ms;
}

/** Bytes a millisecond. */
async function measureUpload(
  connection: Connection,
  roundTripMs: number,
  clock: Clock,
  signal: Signal | undefined,
): Promise<number> {
  const bytes = 4 * RATE_PROBE_FLOATS;
  // A request for a shard that nobody has is refused once it is read whole: the time of the upload and nothing else.
  const probe = new EncodedInputs({ x: float32([RATE_PROBE_FLOATS], new Float32Array(RATE_PROBE_FLOATS)) });
  const uploadMs = await medianMs(clock, async () => {
    try {
      await connection.infer('kofn-rate-probe', probe, { signal, bytes });
    } catch (error) {
      if (!isKofnError(error, 'NOT_FOUND')) throw error;
    }
  });
  const transferMs = Math.max(0.01, uploadMs - roundTripMs);
  connection.speed.uploaded(bytes, transferMs);
  return bytes / transferMs;
}

function medianRunMs(session: Session, input: Shape, clock: Clock): Promise<number> {
  return medianMs(clock, () => session.run({ x: zeros(input) }));
}

function medianMs(clock: Clock, work: () => Promise<unknown>): Promise<number> {
  return median(async () => {
    const start = clock.now();
    await work();
    return clock.now() - start;
  });
}

/** Of what `measure` gives in ROUNDS rounds, after one to warm up. */
async function median(measure: () => Promise<number>): Promise<number> {
  await measure();
  const values: number[] = [];
  for (let round = 0; round < ROUNDS; round++) values.push(await measure());
  return values.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!;
}

function zeros(shape: Shape) {
  return float32(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)));
}
