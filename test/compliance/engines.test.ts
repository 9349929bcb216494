/** One suite over every engine: what `Engine` and `Session` promise. */
import assert from 'node:assert/strict';
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { elementCount, tensor, type Tensor } from '@kofn/core';
import { createEngine, ENGINE_NAMES, type Engine } from '@kofn/engine';
import { after, before, describe, it } from 'mocha';
import { fails, gemm, normal } from '../support/engines.js';
import { makeModel, writeModel, type ModelSpec } from '../support/onnx-models.js';

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
        k: tensor('int16', [2], Int16Array.of(-(2 ** 15), 7)),
        l: tensor('int8', [2], Int8Array.of(-128, 127)),
        u: tensor('uint8', [2], Uint8Array.of(0, 255)),
        v: tensor('uint16', [2], Uint16Array.of(0, 65535)),
        w: tensor('uint32', [2], Uint32Array.of(0, 2 ** 32 - 1)),
        z: tensor('uint64', [2], BigUint64Array.of(0n, 2n ** 64n - 1n)),
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
      await fails(
        session.run({ x: { ...x, data: new Float64Array(7) } }),
        'DTYPE_MISMATCH',
        /input "x": a float32 tensor cannot hold a Float64Array/,
      );
      await fails(
        session.run({ x: { ...x, data: new Float32Array(6) } }),
        'SHAPE_MISMATCH',
        /input "x": .* holds 7 elements, the data has 6/,
      );
      assert.deepEqual((await session.run({ x })).y!.shape, [1, 5]);
    });

    it('takes scalars, empty tensors, and any size where the model names none', async () => {
      await using session = await engine.open(
        write({
          nodes: [{ op: 'Add', inputs: ['x', 's'], outputs: ['y'] }],
          inputs: { x: { dtype: 'float32', shape: ['', 2] }, s: { dtype: 'float32', shape: [] } },
          outputs: { y: { dtype: 'float32' } },
        }),
      );
      const s = tensor('float32', [], Float32Array.of(0.5));
      for (const rows of [0, 1, 3]) {
        const x = tensor('float32', [rows, 2], new Float32Array(rows * 2).fill(1));
        const { y } = await session.run({ x, s });
        assert.deepEqual(y, tensor('float32', [rows, 2], new Float32Array(rows * 2).fill(1.5)));
      }
    });

    it('runs a residual sum whose addend is an output too, which kills a process when ONNX Runtime fuses it', async () => {
      const conv = (inputs: string[], output: string, size: number, group: number) => {
        const pad = size - 1;
        return { op: 'Conv', inputs, outputs: [output], attributes: { group, pads: [pad, pad, 0, 0] } };
      };
      const initializers = {
        bias: normal([2]),
        w2x2x3x3: normal([2, 2, 3, 3]),
        w2x1x3x3: normal([2, 1, 3, 3]),
        w6x2x3x3: normal([6, 2, 3, 3]),
        w2x3x1x1: normal([2, 3, 1, 1]),
      };
      const withOutputs = (...names: string[]) =>
        write({
          nodes: [
            { op: 'Relu', inputs: ['x'], outputs: ['r'] },
            conv(['r', 'w2x2x3x3', 'bias'], 'a', 3, 2),
            conv(['a', 'w2x1x3x3', 'bias'], 'b', 3, 2),
            conv(['a', 'w6x2x3x3'], 'c', 3, 1),
            conv(['c', 'w2x3x1x1', 'bias'], 'addend', 1, 2),
            conv(['b', 'w2x1x3x3'], 'd', 3, 2),
            { op: 'Add', inputs: ['addend', 'd'], outputs: ['sum'] },
          ],
          inputs: { x: { dtype: 'float32', shape: [1, 4, 8, 9] } },
          outputs: Object.fromEntries(names.map(output => [output, { dtype: 'float32' }])),
          initializers,
        });
      await using fusible = await engine.open(withOutputs('addend', 'sum'));
      await using plain = await engine.open(withOutputs('addend', 'd'));
      for (let i = 0; i < 50; i++) {
        const x = normal([1, 4, 8, 9]);
        const { sum } = await fusible.run({ x });
        const { addend, d } = await plain.run({ x });
        sum!.data.forEach((value, at) => {
          const expected = Number(addend!.data[at]) + Number(d!.data[at]);
          assert.ok(Math.abs(Number(value) - expected) <= 1e-4 * (1 + Math.abs(expected)), `${value} ${expected}`);
        });
      }
    });

    it('fails typed when the runtime does, in its words, and goes on', async () => {
      await using session = await engine.open(
        write({
          nodes: [{ op: 'Reshape', inputs: ['x', 'to'], outputs: ['y'] }],
          inputs: { x: { dtype: 'float32', shape: [6] }, to: { dtype: 'int64', shape: [2] } },
          outputs: { y: { dtype: 'float32' } },
        }),
      );
      const x = normal([6]);
      const to = (...sizes: bigint[]) => tensor('int64', [2], BigInt64Array.from(sizes));
      await fails(session.run({ x, to: to(4n, 4n) }), 'ENGINE', /ONNX Runtime failed to run the model: .*Reshape/s);
      assert.deepEqual((await session.run({ x, to: to(2n, 3n) })).y!.shape, [2, 3]);
    });

    it('refuses models whose inputs it cannot carry', async () => {
      const spec: ModelSpec = {
        nodes: [{ op: 'Identity', inputs: ['x'], outputs: ['y'] }],
        inputs: { x: { dtype: 'bfloat16', shape: [2] } },
        outputs: { y: { dtype: 'bfloat16', shape: [2] } },
      };
      await fails(engine.open(write(spec)), 'UNSUPPORTED', /./);
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
      const part = new Float32Array(20); // the input is less than half of it
      part.set(x.data as Float32Array, 3);
      const view: Tensor = { dtype: 'float32', shape: [1, 7], data: part.subarray(3, 10) };
      assert.deepEqual(await session.run({ x: view }, { transfer: true }), kept);
      assert.equal(part.length, 20);
      assert.deepEqual(await session.run({ x }, { transfer: true }), kept);
      assert.equal(x.data.length, 0, 'detached');
      await fails(session.run({ x }), 'SHAPE_MISMATCH', /input "x": .*given to an earlier run/);
      assert.deepEqual(await session.run({ x: { ...view, data: sharedCopy(view) } }, { transfer: true }), kept);
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
  });
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

/** The elements in shared memory, which cannot be moved. */
function sharedCopy(value: Tensor): Float32Array {
  const shared = new Float32Array(new SharedArrayBuffer(value.data.length * 4));
  shared.set(value.data as Float32Array);
  return shared;
}
