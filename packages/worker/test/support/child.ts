/** `kofn-worker` as a process, for tests. Dispose of it and it is gone, its data directory with it. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { float32, seededRng } from '@kofn/core';
import { shardModel } from '@kofn/graph';
import { shardName, type ShardFiles } from '@kofn/wire';
import { temporaryFolder } from './temporary.js';

export const BIN = fileURLToPath(new URL('../../../bin/kofn-worker.js', import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Child extends AsyncDisposable {
  readonly process: ChildProcessWithoutNullStreams;
  readonly dataDir: string;
  /** The first line of its standard output; fails when it ends without one. */
  readonly firstLine: Promise<string>;
  readonly ended: Promise<Ended>;
}

/** Starts it on a free port with one thread, `args` after that. */
export async function startChild(args: readonly string[] = []): Promise<Child> {
  const folder = await temporaryFolder();
  const defaults = ['--listen', '127.0.0.1:0', '--data-dir', folder.path, '--threads', '1'];
  const child = spawn(process.execPath, [BIN, ...defaults, ...args]);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    return { code: code as number | null, signal: signal as NodeJS.Signals | null, stdout, stderr };
  });
  const line = once(createInterface(child.stdout), 'line') as Promise<[string]>;
  const firstLine = Promise.race([
    line.then(([text]) => text),
    ended.then(end => Promise.reject(new Error(`ended with ${end.code ?? end.signal}: ${end.stderr}`))),
  ]);
  firstLine.catch(() => undefined);
  return {
    process: child,
    dataDir: folder.path,
    firstLine,
    ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** A Gemm of `fanIn` to `units` with seeded weights; `expected` is its output for x in float64. */
export function denseShard(fanIn: number, units: number, seed: number) {
  const rng = seededRng(seed);
  const draw = (length: number) => Float32Array.from({ length }, () => rng.normal());
  const [weights, bias] = [draw(units * fanIn), draw(units)];
  const { model, weights: data } = shardModel([{ layer: { operator: 'Gemm', fanIn }, weights, bias, units }]);
  const shard: ShardFiles = { name: shardName(model, data), model, weights: data };
  const input = (rows: number) => float32([rows, fanIn], draw(rows * fanIn));
  const expected = (x: Float32Array) =>
    Array.from({ length: (x.length / fanIn) * units }, (_, i) => {
      const [row, unit] = [Math.floor(i / units), i % units];
      let sum = bias[unit]!;
      for (let j = 0; j < fanIn; j++) sum += weights[unit * fanIn + j]! * x[row * fanIn + j]!;
      return sum;
    });
  return { shard, input, expected };
}
