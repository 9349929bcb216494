/**
 * An engine as the settings of faults.ts have it: as slow as a device that is described, or slower than it is, or standing still before
 * a run. The executor uses it as any engine; without such settings runs are only counted and timed.
 *
 * Invariants
 * 1. A run takes at least the time of the device, from its start to its end; what the engine under it takes is part of that.
 * 2. A run that has begun lasts to its end: nobody's cancel shortens it. Only the end of the worker does.
 * 3. What is replayed is bit for bit what was computed.
 */
import path from 'node:path';
import type { Clock, Shape, Tensors } from '@kofn/core';
import type { Engine, RunOptions, Session } from '@kofn/engine';
import type * as Graph from '@kofn/graph';
import type { Faults } from './faults.js';
import { ReplayMemory, replayKey } from './replay-memory.js';

type Shapes = Readonly<Record<string, Shape>>;

/** Around `engine`, which stays its owner's. */
export function emulatedDevice(engine: Engine, faults: Faults, clock: Clock): Engine {
  // Loaded now and not by the first run, and only here: a worker without faults reads no models.
  const graph = import('@kofn/graph');
  const memory = new ReplayMemory();
  return {
    name: engine.name,
    version: engine.version,
    async open(location, options) {
      const session = await engine.open(location, options);
      const macs = memoised(async (shapes: Shapes) => macsOfShard(await graph, location, shapes));
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        async run(feeds, runOptions) {
          const { regime } = faults;
          const { device, slowFactor } = regime.settings;
          await faults.stall(feeds, regime);
          return faults.busy(regime, async start => {
            const shapes = shapesOf(feeds); // before they are moved away
            if (device?.replay !== true) memory.clear();
            const outputs =
              device?.replay === true
                ? await replayed(memory, location, session, feeds, runOptions)
                : await session.run(feeds, runOptions);
            const ms =
              device === undefined
                ? clock.now() - start
                : device.overheadMs + (2 * (await macs({ ...shapes, ...shapesOf(outputs) }))) / (1e6 * device.gflops);
            await faults.untilDevice(start + ms);
            // Slower than the device that it is, a worker is what its watch takes it for.
            await faults.until(start + slowFactor * ms);
            return outputs;
          });
        },
        [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
      };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function replayed(
  memory: ReplayMemory,
  location: string,
  session: Session,
  feeds: Tensors,
  options: RunOptions | undefined,
): Promise<Tensors> {
  const key = replayKey(location, feeds);
  const known = key === undefined ? undefined : memory.get(key);
  if (known !== undefined) return known;
  const outputs = await session.run(feeds, options);
  if (key !== undefined) memory.keep(key, outputs);
  return outputs;
}

/**
 * Multiply-accumulates of a run of the model in a folder, by the shapes of its inputs and outputs: those of the linear layers between
 * them, which are all that a shard has.
 */
async function macsOfShard({ loadModel, profile }: typeof Graph, location: string, shapes: Shapes): Promise<number> {
  // What the weights are makes no difference, and they may be large.
  const readExternal = (_: string, __: number, byteLength = 0) => new Uint8Array(byteLength);
  const model = await loadModel(path.join(location, 'model.onnx'), { readExternal });
  return profile(model, shapes).reduce((sum, { macs }) => sum + macs, 0);
}

function shapesOf(values: Tensors): Record<string, Shape> {
  return Object.fromEntries(Object.entries(values).map(([name, { shape }]) => [name, shape]));
}

function memoised<A, T>(compute: (argument: A) => Promise<T>): (argument: A) => Promise<T> {
  const results = new Map<string, Promise<T>>();
  return argument => {
    const key = JSON.stringify(argument);
    const known = results.get(key);
    if (known !== undefined) return known;
    const result = compute(argument);
    results.set(key, result);
    return result;
  };
}
