import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { prepareTransfer } from '../src/protocol.js';

describe('prepareTransfer', () => {
  const whole = () => Float32Array.of(1, 2, 3);

  it('gives away a tensor that covers its buffer, when it may', () => {
    const data = whole();
    const { values, buffers } = prepareTransfer({ x: { dtype: 'float32', shape: [3], data } }, true);
    assert.equal(values.x!.data, data);
    assert.deepEqual(buffers, [data.buffer]);
  });

  it('copies it when it may not', () => {
    const data = whole();
    const { values, buffers } = prepareTransfer({ x: { dtype: 'float32', shape: [3], data } }, false);
    assert.deepEqual(values.x!.data, data);
    assert.notEqual(values.x!.data, data);
    assert.ok(!buffers.includes(data.buffer));
  });

  it('cuts views out of larger, pooled and shared buffers', () => {
    const large = new Float32Array(10).fill(7);
    const pooled = Buffer.from([1, 2, 3]);
    const shared = new Uint8Array(new SharedArrayBuffer(3));
    const { values, buffers } = prepareTransfer(
      {
        view: { dtype: 'float32', shape: [3], data: large.subarray(2, 5) },
        pooled: { dtype: 'uint8', shape: [3], data: pooled },
        shared: { dtype: 'uint8', shape: [3], data: shared },
      },
      true,
    );
    assert.deepEqual(
      buffers.map(buffer => buffer.byteLength),
      [12, 3, 3],
    );
    assert.deepEqual(values.view!.data, Float32Array.of(7, 7, 7));
    assert.deepEqual(values.pooled!.data, Uint8Array.of(1, 2, 3));
    structuredClone(values, { transfer: buffers });
    assert.equal(large.length, 10);
    assert.equal(pooled.length, 3);
  });

  it('moves a buffer that is mostly the tensor, as a message off the wire is', () => {
    const message = new Uint8Array(8 + 12).fill(1);
    const data = new Float32Array(message.buffer, 8, 3);
    const { values, buffers } = prepareTransfer({ x: { dtype: 'float32', shape: [3], data } }, true);
    assert.deepEqual([buffers, values.x!.data === data], [[message.buffer], true]);
    const moved = structuredClone(values, { transfer: buffers });
    assert.deepEqual(
      [message.length, moved.x!.data.length, moved.x!.data],
      [0, 3, new Float32Array(Uint8Array.from({ length: 12 }, () => 1).buffer)],
    );
  });

  it('names a buffer once that two tensors share, and leaves strings alone', () => {
    const data = whole();
    const { values, buffers } = prepareTransfer(
      {
        x: { dtype: 'float32', shape: [3], data },
        y: { dtype: 'float32', shape: [1, 3], data },
        s: { dtype: 'string', shape: [1], data: ['kofn'] },
      },
      true,
    );
    assert.equal(buffers.length, 1);
    assert.deepEqual(values.s, { dtype: 'string', shape: [1], data: ['kofn'] });
  });
});
