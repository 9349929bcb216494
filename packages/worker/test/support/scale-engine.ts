/**
 * An Engine for tests: a model is the JSON {"scale": s} and computes y = s · x + (first byte of weights.bin). A run waits
 * while the engine is held, so that a test decides what runs and what waits.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { float32, KofnError, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { shardName, type ShardFiles } from '@kofn/wire';

export function scaleShard(scale: number, weights: Uint8Array = new Uint8Array()): ShardFiles {
  const model = Buffer.from(JSON.stringify({ scale }));
  return { name: shardName(model, weights), model, weights };
}

export class ScaleEngine implements Engine {
  readonly name = 'simulated';
  readonly version = '1';
  readonly opened: string[] = [];
  readonly closed: string[] = [];
  /** Scales of the runs, in the order in which they started. */
  readonly runs: number[] = [];
  #gate: { promise: Promise<void>; open: () => void } | undefined;
  readonly #watchers: (() => void)[] = [];

  /** Runs and opens wait from now on until `release`. */
  hold(): void {
    let open!: () => void;
    const promise = new Promise<void>(resolve => (open = resolve));
    this.#gate = { promise, open };
  }

  release(): void {
    this.#gate?.open();
    this.#gate = undefined;
  }

  /** Resolves once `count` runs have started. */
  async started(count: number): Promise<void> {
    while (this.runs.length < count) await new Promise<void>(resolve => this.#watchers.push(resolve));
  }

  async open(location: string): Promise<Session> {
    const name = path.basename(location);
    this.opened.push(name);
    await this.#gate?.promise;
    const model = JSON.parse(await readFile(path.join(location, 'model.onnx'), 'utf8')) as { scale?: number };
    if (model.scale === undefined) throw new KofnError('INVALID_MODEL', 'the model has no scale');
    const { scale } = model;
    const offset = (await readFile(path.join(location, 'weights.bin')))[0] ?? 0;
    const info = (value: string) => ({ name: value, dtype: 'float32' as const, shape: ['rows', 2] });
    return {
      inputs: [info('x')],
      outputs: [info('y')],
      run: async (feeds: Tensors) => {
        const x = feeds['x'];
        if (x === undefined) throw new KofnError('INVALID_ARGUMENT', 'the model has the input x, which was not given');
        this.runs.push(scale);
        for (const watcher of this.#watchers.splice(0)) watcher();
        await this.#gate?.promise;
        return {
          y: float32(
            x.shape,
            (x.data as Float32Array).map(value => scale * value + offset),
          ),
        };
      },
      [Symbol.asyncDispose]: () => {
        this.closed.push(name);
        return Promise.resolve();
      },
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.release();
    return Promise.resolve();
  }
}
