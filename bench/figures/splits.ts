/**
 * Ways to split a layer over workers: bytes to and from each, what each computes, and which can be coded by weights. Not a run of the
 * failure benchmark: bytes are computed (split-layers.ts), compute is the sub-layer of one worker in bare ONNX Runtime.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { float32, seededRng, type Rng } from '@kofn/core';
import { sessionOptions } from '@kofn/engine';
import { imageOfFiles, layerModel, saveModel } from '@kofn/graph';
import { percentile, roundMs } from 'kofn/measure';
import ort from 'onnxruntime-node';
import { parse } from 'yaml';
import { z } from 'zod';
import { interleaved, quartiles, timed } from '../statistics.js';
import { rounded, type Drawing, type Figure, type MeasureContext, type Row } from './figure.js';
import { splitOf, wholeOf, type Part } from './split-layers.js';
import { splitsSpec } from './splits-picture.js';

const WARM_UP = 5;
const whole = (max: number) => z.int().min(1).max(max);

export const splitsConfig = z.strictObject({
  name: z.literal('splits'),
  description: z.string(),
  seed: z.int().min(0),
  workers: whole(64),
  rounds: whole(10_000),
  layers: z
    .array(
      z.union([
        z.strictObject({
          name: z.string(),
          fc: z.tuple([whole(65_536), whole(65_536)]),
          splits: z.array(z.enum(['output', 'input'])),
        }),
        z.strictObject({
          name: z.string(),
          conv: z.strictObject({ channels: z.tuple([whole(8192), whole(8192)]), kernel: whole(31), size: whole(2048) }),
          splits: z.array(z.enum(['channel', 'depth', 'space'])),
        }),
      ]),
    )
    .min(1),
});

const splitResult = z.object({
  schema: z.literal('kofn-splits/1'),
  command: z.string(),
  workers: z.int(),
  rounds: z.int(),
  environment: z.object({ cpu: z.string(), node: z.string(), onnxruntime: z.string() }),
  splits: z
    .array(
      z.object({
        layer: z.string(),
        split: z.string(),
        bytesIn: z.int(),
        bytesOut: z.int(),
        isCodable: z.boolean(),
        why: z.string(),
        /** Of the sub-layer of one worker: median, and quartiles. */
        ms: z.number(),
        msQuartiles: z.array(z.number()),
        /** Of the whole layer. */
        wholeMs: z.number(),
      }),
    )
    .min(1),
});

export type SplitResult = z.infer<typeof splitResult>;

export const splits: Figure = {
  name: 'splits',
  what: 'ways to split a layer over four workers',
  minutes: 0.4,
  measure,
  draw,
};

async function measure({ configFile, command, signal, onProgress }: MeasureContext): Promise<SplitResult> {
  const { seed, workers, rounds, layers } = splitsConfig.parse(parse(await readFile(configFile, 'utf8')));
  const found: SplitResult['splits'] = [];
  for (const [index, layer] of layers.entries()) {
    const ways = layer.splits.map(kind => splitOf(layer, kind, workers));
    const ms = await timesOf(
      { whole: wholeOf(layer), ...Object.fromEntries(ways.map(way => [way.name, way.part])) },
      {
        seed,
        rounds,
        signal,
        progress: done => onProgress((index + done) / layers.length, layer.name),
      },
    );
    const median = (name: string) => roundMs(percentile(ms[name]!, 50))!;
    for (const { name, bytesIn, bytesOut, isCodable, why } of ways) {
      const msQuartiles = quartiles(ms[name]!).map(each => each!);
      const measured = { ms: median(name), msQuartiles, wholeMs: median('whole') };
      found.push({ layer: layer.name, split: name, bytesIn, bytesOut, isCodable, why, ...measured });
    }
  }
  const environment = {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    node: process.version,
    onnxruntime: ort.env.versions.node ?? ort.env.versions.common,
  };
  return { schema: 'kofn-splits/1', command, workers, rounds, environment, splits: found };
}

interface Rounds {
  readonly seed: number;
  readonly rounds: number;
  readonly signal: AbortSignal;
  readonly progress: (share: number) => void;
}

/** Milliseconds of each of `parts` in one thread, in turn with the others. */
async function timesOf(
  parts: Readonly<Record<string, Part>>,
  { seed, rounds, signal, progress }: Rounds,
): Promise<Record<string, number[]>> {
  const folder = await mkdtemp(path.join(tmpdir(), 'kofn-figures-'));
  const sessions: ort.InferenceSession[] = [];
  const rng = seededRng(seed);
  try {
    const samplers: Record<string, () => Promise<number>> = {};
    for (const [name, { layer, input }] of Object.entries(parts)) {
      const weights = drawn(layer.units * layer.fanIn, rng);
      await saveModel(imageOfFiles(layerModel({ ...layer, name, weights })), folder);
      const session = await ort.InferenceSession.create(path.join(folder, 'model.onnx'), sessionOptions(1));
      sessions.push(session);
      // Its session maps the file; the next part gets one of its own.
      await rm(path.join(folder, 'weights.bin'));
      const { data, shape } = float32(
        input,
        drawn(
          input.reduce((a, b) => a * b, 1),
          rng,
        ),
      );
      const x = new ort.Tensor('float32', data, shape);
      samplers[name] = timed(() => {
        signal.throwIfAborted();
        return session.run({ x });
      });
    }
    return await interleaved(samplers, { rounds, warmUp: WARM_UP, progress: (done, of) => progress(done / of) });
  } finally {
    await Promise.all(sessions.map(session => session.release()));
    await rm(folder, { recursive: true, force: true });
  }
}

function drawn(length: number, rng: Rng): Float32Array {
  return Float32Array.from({ length }, () => rng.uniform() - 0.5);
}

function draw(saved: unknown): Drawing {
  const result = splitResult.parse(saved);
  const rows = result.splits.map(({ layer, split, bytesIn, bytesOut, ms, wholeMs, isCodable, why }): Row => ({
    layer,
    split,
    'kB to a worker': rounded(bytesIn / 1000),
    'kB back': rounded(bytesOut / 1000),
    'ms of a worker': rounded(ms),
    'whole layer / 4, ms': rounded(wholeMs / result.workers),
    'codable by weights': `${isCodable ? 'yes' : 'no'}: ${why}`,
  }));
  return { rows, spec: splitsSpec(result) };
}
