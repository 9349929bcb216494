/** Workers that go wrong on purpose: sound ones in this process but for the engines named, whose outputs are spoiled. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError, type Tensors } from '@kofn/core';
import { createEngine, type Engine, type EngineName, type Session } from '@kofn/engine';
import { startWorker, type RunningWorker } from '@kofn/worker';
import { codedModel, connect, type Cluster, type LayerPlan, type ModelOptions, type ModelSource } from 'kofn';

/** What an engine answers instead of `outputs`; it may throw. */
export type Spoil = (outputs: Tensors, about: Spoiling) => Tensors | Promise<Tensors>;

export interface Spoiling {
  /** Number of the worker. */
  readonly worker: number;
  /** What the shard that the engine opened before this one makes of the same input. */
  readonly stale: () => Promise<Tensors>;
}

export interface FaultyWorkers extends AsyncDisposable {
  readonly addresses: readonly string[];
  readonly workers: readonly RunningWorker[];
}

export interface LossyCluster extends AsyncDisposable {
  readonly cluster: Cluster;
  /** Workers that fail every run, and those that answer; ascending. */
  readonly lost: readonly number[];
  readonly sound: readonly number[];
}

const WORKERS = 5;

/** Five workers, of which those numbered in `faults` take shards like the others and answer through `spoil`. */
export async function faultyWorkers(faults: readonly number[], spoil: Spoil): Promise<FaultyWorkers> {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-faulty-'));
  const workers: RunningWorker[] = [];
  const close = async () => {
    for (const worker of workers) await worker.close();
    rmSync(folder, { recursive: true });
  };
  try {
    for (let i = 0; i < WORKERS; i++) {
      const sound = await createEngine('native');
      const engine = faults.includes(i) ? spoiled(sound, spoil, i) : sound;
      workers.push(await startWorker({ listen: '127.0.0.1:0', dataDir: path.join(folder, String(i)) }, { engine }));
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { addresses: workers.map(({ address }) => address), workers, [Symbol.asyncDispose]: close };
}

/** A cluster of five workers that loses the blocks of `lost` in every request: their engines fail each run (ENGINE). `engine` is the master's. */
export async function lossyCluster(lost: readonly number[], engine?: EngineName): Promise<LossyCluster> {
  const faulty = await faultyWorkers(lost, () => {
    throw new KofnError('ENGINE', 'out of order');
  });
  try {
    const cluster = await connect({ workers: faulty.addresses, ...(engine && { engine }) });
    return {
      cluster,
      lost,
      sound: faulty.workers.map((_, worker) => worker).filter(worker => !lost.includes(worker)),
      async [Symbol.asyncDispose]() {
        await cluster[Symbol.asyncDispose]();
        await faulty[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await faulty[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Deploys `model` with as much parity as there are workers lost, and runs it once. What was coded must have been decoded
 * from the sound workers' blocks: had the master computed one, nothing would be proved.
 */
export async function runLossy(
  { cluster, lost, sound }: LossyCluster,
  model: ModelSource,
  feeds: Tensors,
  options: Pick<ModelOptions, 'segments'> = {},
): Promise<{ outputs: Tensors; layers: readonly LayerPlan[]; notes: readonly string[] }> {
  await using coded = await codedModel(model, { cluster, parity: lost.length, sampleInputs: feeds, ...options });
  const { outputs, report } = await coded.run(feeds);
  const { layers, notes } = coded.plan;
  const planned = layers.filter(({ decision }) => decision === 'coded').map(({ name }) => name);
  assert.deepEqual(
    report.layers.map(({ name, decodeSet, computedHere }) => ({ name, decodeSet, computedHere })),
    planned.map(name => ({ name, decodeSet: sound, computedHere: [] })),
  );
  return { outputs, layers, notes };
}

/** `engine`, worker `worker`'s, with its outputs passed through `spoil`. */
export function spoiled(engine: Engine, spoil: Spoil, worker = 0): Engine {
  let last: Session | undefined;
  return {
    name: engine.name,
    version: engine.version,
    async open(location, options): Promise<Session> {
      const session = await engine.open(location, options);
      const before = last ?? session;
      last = session;
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        run: async (feeds, runOptions) => {
          const copy = structuredClone(feeds); // a run may take the buffers with it
          return spoil(await session.run(feeds, runOptions), { worker, stale: () => before.run(copy) });
        },
        [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
      };
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}
