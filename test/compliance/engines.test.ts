/** One suite over every engine: what `Engine` and `Session` promise. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { elementCount, isKofnError, seededRng, tensor, type ErrorCode, type Tensor } from '@kofn/core';
import { createEngine, ENGINE_NAMES, type Engine } from '@kofn/engine';
import { after, before, describe, it } from 'mocha';
import { drawn, makeModel, writeModel, type ModelSpec } from '../support/onnx-models.js';

const rng = seededRng(7);
const normal = (shape: readonly number[]) => drawn(shape, () => rng.normal());

for (const name of ENGINE_NAMES) {
  describe(`compliance of engines: ${name}`, () => {
    let engine: Engine;
    const folders: string[] = [];
    const write = (spec: ModelSpec) => {
      const folder = writeModel(makeModel(spec));
      folders.push(folder);
      return folder;
    };
    before(async () => {
      engine = await createEngine(name);
    });
    after(async () => {
      await engine[Symbol.asyncDispose]();
      for (const folder of folders) rmSync(folder, { recursive: true });
    });

    it('says what it is', () => {
      assert.equal(engine.name, name);
      assert.match(engine.version, /^\d+\.\d+\.\d+/);
    });

    it('runs a Gemm with weights in weights.bin, for any number of rows', async () => {
      const [w, b] = [normal([5, 7]), normal([5])];
      await using session = await engine.open(write({ ...gemm(w, b), external: true }), { threads: 2 });
      assert.deepEqual(session.inputs, [{ name: 'x', dtype: 'float32', shape: ['rows', 7] }]);
      assert.deepEqual(session.outputs, [{ name: 'y', dtype: 'float32', shape: ['rows', 5] }]);
      for (const rows of [1, 2, 17]) {
        const x = normal([rows, 7]);
        const { y } = await session.run({ x });
        assert.deepEqual(y!.shape, [rows, 5]);
        close(
          y!,
          x.data as Float32Array,
          (at, data) => dot(w, at % 5, data, Math.floor(at / 5)) + Number(b.data[at % 5]),
        );
      }
    });

    for (const spatial of [[9], [6, 5], [4, 3, 5]]) {
      it(`runs a ${spatial.length}-D convolution`, async () => {
        const kernel = spatial.map(() => 2);
        const w = normal([3, 2, ...kernel]);
        await using session = await engine.open(
          write({
            nodes: [{ op: 'Conv', inputs: ['x', 'w'], outputs: ['y'], attributes: { kernel_shape: kernel } }],
            inputs: { x: { dtype: 'float32', shape: ['N', 2, ...spatial] } },
            outputs: { y: { dtype: 'float32' } },
            initializers: { w },
          }),
        );
        const x = normal([2, 2, ...spatial]);
        const { y } = await session.run({ x });
        assert.deepEqual(y!.shape, [2, 3, ...spatial.map(size => size - 1)]);
        close(y!, x.data as Float32Array, (at, data) => convolve(at, data, w, spatial));
      });
    }

    it('takes several inputs and gives several outputs of every element type', async () => {
      const values = {
        f: tensor('float32', [2], Float32Array.of(1.5, -0)),
        d: tensor('float64', [2], Float64Array.of(1e300, 2)),
        h: tensor('float16', [2], Uint16Array.of(0x3c00, 0xc000)),
        i: tensor('int64', [2], BigInt64Array.of(-(2n ** 62n), 3n)),
        j: tensor('int32', [2], Int32Array.of(-5, 6)),
        u: tensor('uint8', [2], Uint8Array.of(0, 255)),
        b: tensor('bool', [2], Uint8Array.of(1, 0)),
        s: tensor('string', [2], ['kofn', 'ünï']),
      } as const;
      const names = Object.keys(values) as (keyof typeof values)[];
      await using session = await engine.open(
        write({
          nodes: names.map(n => ({ op: 'Identity', inputs: [n], outputs: [`${n}_out`] })),
          inputs: Object.fromEntries(names.map(n => [n, { dtype: values[n].dtype, shape: [2] }])),
          outputs: Object.fromEntries(names.map(n => [`${n}_out`, { dtype: values[n].dtype, shape: [2] }])),
        }),
      );
      const outputs = await session.run(values);
      for (const n of names) assert.deepEqual(outputs[`${n}_out`], values[n], n);
    });

    it('names the input that is missing, unknown, of another type or shape, and goes on', async () => {
      await using session = await engine.open(write(gemm(normal([5, 7]), normal([5]))));
      const x = normal([1, 7]);
      await fails(
        session.run({}),
        'INVALID_ARGUMENT',
        /input "x" is missing; the model takes "x" \(float32 \[rows,7\]\)/,
      );
      await fails(session.run({ x, z: x }), 'INVALID_ARGUMENT', /no input "z"; the model takes "x"/);
      await fails(session.run({ x: normal([1, 6]) }), 'SHAPE_MISMATCH', /"x" takes shape \[rows,7\], got \[1,6\]/);
      await fails(session.run({ x: normal([7]) }), 'SHAPE_MISMATCH', /got \[7\]/);
      const double = tensor('float64', [1, 7], new Float64Array(7));
      await fails(session.run({ x: double }), 'DTYPE_MISMATCH', /"x" takes float32, got float64/);
      assert.deepEqual((await session.run({ x })).y!.shape, [1, 5]);
    });

    it('says why a model does not open, and goes on', async () => {
      await fails(engine.open('/nowhere'), 'NOT_FOUND', /no model at \/nowhere/);
      const garbage = write(gemm(normal([5, 7]), normal([5])));
      writeFileSync(path.join(garbage, 'model.onnx'), 'this is not a model');
      await fails(engine.open(garbage), 'INVALID_MODEL', /cannot open the model in/);
      const missing = write({ ...gemm(normal([50, 70]), normal([50])), external: true });
      rmSync(path.join(missing, 'weights.bin'));
      await fails(engine.open(missing), 'INVALID_MODEL', /weights\.bin|external/i);
      const short = write({ ...gemm(normal([50, 70]), normal([50])), external: true });
      truncateSync(path.join(short, 'weights.bin'), 100);
      await fails(engine.open(short), 'INVALID_MODEL', /./);
      const threads = engine.open(garbage, { threads: 0 });
      await fails(threads, 'INVALID_ARGUMENT', /threads: must be a whole number ≥ 1, got 0/);
      await using session = await engine.open(write(gemm(normal([5, 7]), normal([5]))));
      assert.equal(session.inputs.length, 1);
    });

    it('moves input buffers only when told to, and never a part of a larger one', async () => {
      await using session = await engine.open(write(gemm(normal([5, 7]), normal([5]))));
      const x = normal([1, 7]);
      const kept = await session.run({ x });
      assert.equal(x.data.length, 7);
      const part = new Float32Array(20);
      part.set(x.data as Float32Array, 3);
      const view: Tensor = { dtype: 'float32', shape: [1, 7], data: part.subarray(3, 10) };
      assert.deepEqual(await session.run({ x: view }, { transfer: true }), kept);
      assert.equal(part.length, 20);
      assert.deepEqual(await session.run({ x }, { transfer: true }), kept);
      assert.equal(x.data.length, 0, 'detached');
    });

    it('leaves the calling thread free while a model runs, and answers in the order of the calls', async () => {
      await using session = await engine.open(write(gemm(normal([900, 900]), normal([900]))));
      const answered: number[] = [];
      let turns = 0;
      const turn = () => {
        turns++;
        if (answered.length < 3) setImmediate(turn);
      };
      setImmediate(turn);
      const x = normal([400, 900]);
      await Promise.all([0, 1, 2].map(async call => answered.push((await session.run({ x }), call))));
      assert.deepEqual(answered, [0, 1, 2]);
      assert.ok(turns > 50, `the event loop turned ${turns} times`);
    });

    it('ends what is pending with CANCELLED when session or engine closes', async () => {
      const folder = write(gemm(normal([500, 500]), normal([500])));
      const own = await createEngine(name);
      const session = await own.open(folder);
      const first = await own.open(folder);
      const x = normal([200, 500]);
      const pending = fails(first.run({ x }), 'CANCELLED', /session is closed/);
      await first[Symbol.asyncDispose]();
      await pending;
      await fails(first.run({ x }), 'CANCELLED', /session is closed/);
      const running = fails(session.run({ x }), 'CANCELLED', /engine is closed/);
      await own[Symbol.asyncDispose]();
      await running;
      await fails(session.run({ x }), 'CANCELLED', /engine is closed/);
      await fails(own.open(folder), 'CANCELLED', /engine is closed/);
      await session[Symbol.asyncDispose]();
    });

    it('gives memory back when sessions close', async function () {
      const folder = write({ ...gemm(normal([1000, 1000]), normal([1000])), external: true });
      const x = normal([1, 1000]);
      const cycle = async () => {
        await using session = await engine.open(folder);
        await session.run({ x });
      };
      for (let i = 0; i < 10; i++) await cycle();
      const before = process.memoryUsage.rss();
      for (let i = 0; i < 60; i++) await cycle();
      const grownMB = (process.memoryUsage.rss() - before) / 1e6;
      assert.ok(grownMB < 100, `60 sessions of 4 MB left ${grownMB.toFixed(0)} MB behind`);
    });

    it('does not keep a process alive when idle, nor let one end with a call under way', async () => {
      const folder = write(gemm(normal([5, 7]), normal([5])));
      const script = `
        import { createEngine } from '@kofn/engine';
        const engine = await createEngine('${name}');
        const session = await engine.open(${JSON.stringify(folder)});
        session.run({ x: { dtype: 'float32', shape: [1, 7], data: new Float32Array(7) } }).then(() => console.log('ran'));
      `;
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
        cwd: new URL('../..', import.meta.url),
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let printed = '';
      child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
      const [code] = (await once(child, 'close')) as [number];
      assert.equal(printed, 'ran\n');
      assert.equal(code, 0);
    });
  });
}

describe('createEngine', () => {
  it('refuses an engine that does not exist, by name', async () => {
    await fails(createEngine('gpu' as 'wasm'), 'INVALID_ARGUMENT', /engine: "gpu" is not one of auto, native, wasm/);
  });
});

function gemm(w: Tensor, b: Tensor): ModelSpec {
  return {
    nodes: [{ op: 'Gemm', inputs: ['x', 'w', 'b'], outputs: ['y'], attributes: { transB: 1 } }],
    inputs: { x: { dtype: 'float32', shape: ['rows', w.shape[1]!] } },
    outputs: { y: { dtype: 'float32', shape: ['rows', w.shape[0]!] } },
    initializers: { w, b },
  };
}

function dot(w: Tensor, row: number, x: Float32Array, sample: number): number {
  const width = w.shape[1]!;
  let sum = 0;
  for (let i = 0; i < width; i++) sum += Number(w.data[row * width + i]) * x[sample * width + i]!;
  return sum;
}

/** Output element `at` of a convolution of two input channels to three with a kernel of 2 in every dimension. */
function convolve(at: number, x: Float32Array, w: Tensor, spatial: readonly number[]): number {
  const out = spatial.map(size => size - 1);
  const position = [...out].reverse().map(size => {
    const index = at % size;
    at = Math.floor(at / size);
    return index;
  });
  position.reverse();
  const channel = at % 3;
  const sample = Math.floor(at / 3);
  const taps = 2 ** spatial.length;
  let sum = 0;
  for (let c = 0; c < 2; c++) {
    for (let tap = 0; tap < taps; tap++) {
      let index = sample * 2 + c;
      spatial.forEach((size, d) => (index = index * size + position[d]! + ((tap >> (spatial.length - 1 - d)) & 1)));
      sum += x[index]! * Number(w.data[(channel * 2 + c) * taps + tap]);
    }
  }
  return sum;
}

function close(got: Tensor, input: Float32Array, expected: (at: number, input: Float32Array) => number): void {
  assert.equal(got.data.length, elementCount(got.shape));
  for (let at = 0; at < got.data.length; at++) {
    const want = expected(at, input);
    assert.ok(Math.abs(Number(got.data[at]) - want) < 1e-4, `element ${at}: ${String(got.data[at])}, expected ${want}`);
  }
}

async function fails(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, error => {
    assert.ok(isKofnError(error, code), `expected ${code}, got ${String(error)}`);
    assert.match(error.message, message);
    return true;
  });
}
