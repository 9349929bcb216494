/** Shapes and values of linear layers against ONNX Runtime, attribute by attribute. */
import assert from 'node:assert/strict';
import { float32, KofnError, type Tensor } from '@kofn/core';
import { describe, it } from 'mocha';
import { findCodable, layerModel, loadModel, outputShape, type Codable, type ModelFiles } from '../src/index.js';
import { valueInfoProto, type NodeProto } from '../src/model/proto.js';
import { writeModel } from '../src/model/write-model.js';
import { assertClose, node, values } from './support/models.js';
import { runModel } from './support/ort.js';

function oneNode(linear: NodeProto, constants: Record<string, Tensor>): ModelFiles {
  return writeModel({
    nodes: [linear],
    inputs: [valueInfoProto('x', 'float32')],
    outputs: [valueInfoProto('y', 'float32')],
    constants: Object.entries(constants).map(([name, value]) => ({ name, value })),
  });
}

/** Whether the layer that findCodable reads gives what the node itself gives in ONNX Runtime, and outputShape its shape. */
async function assertReadRight(files: ModelFiles, x: Tensor, what: string): Promise<void> {
  const [report] = findCodable(await loadModel(files));
  assert.ok(report?.codable, `${what}: ${report?.codable === false ? report.reason : 'not found'}`);
  const layer = report.layer();
  assert.deepEqual(
    [layer.units, layer.fanIn, layer.bias !== undefined, layer.conv?.groups ?? 1],
    [report.units, report.fanIn, report.hasBias, report.groups],
    what,
  );
  assert.equal(layer.weights.length, layer.units * layer.fanIn, what);
  const { y } = await runModel(files, { x });
  assert.deepEqual(outputShape(layer, x.shape), y!.shape, what);
  const { y: read } = await runModel(layerModel(layer), { x });
  assertClose(read!, y!, what);
}

describe('linear layers as ONNX Runtime runs them', () => {
  for (const dims of [1, 2, 3]) {
    it(`${dims}-D convolutions: every mix of padding, stride, dilation, kernel and groups`, async () => {
      const all = (size: number) => new Array<number>(dims).fill(size);
      let count = 0;
      for (const padding of ['none', 'even', 'uneven', 'SAME_UPPER', 'SAME_LOWER', 'VALID']) {
        for (const stride of [1, 2, 3]) {
          for (const dilation of [1, 2]) {
            for (const [kernel, groups] of [
              [1, 1],
              [2, 2],
              [3, 1],
            ] as const) {
              const attributes = {
                strides: all(stride),
                dilations: all(dilation),
                group: groups,
                ...(padding === 'even' ? { pads: all(1).concat(all(1)) } : {}),
                ...(padding === 'uneven' ? { pads: all(0).concat(all(2)) } : {}),
                ...(/[A-Z]/.test(padding) ? { auto_pad: padding } : {}),
              };
              const channels = 4;
              // One size that is a multiple of no stride here, the others differ, so that no axis stands for another.
              const x = values([2, channels, ...[7, 6, 5].slice(0, dims)]);
              const w = values([6, channels / groups, ...all(kernel)], 2);
              const biased = count % 2 === 0;
              const linear = node('Conv', 'c', biased ? ['x', 'w', 'b'] : ['x', 'w'], ['y'], attributes);
              const files = oneNode(linear, { w, ...(biased ? { b: values([6], 3) } : {}) });
              count++;
              if (padding.startsWith('SAME') && dilation > 1) {
                await assert.rejects(runModel(files, { x }), /Dilation not supported for AutoPadType/);
                continue;
              }
              await assertReadRight(files, x, JSON.stringify({ kernel, ...attributes }));
            }
          }
        }
      }
      assert.equal(count, 108);
    });
  }

  it('a convolution whose sizes differ by axis', async () => {
    const attributes = { strides: [1, 3, 2], dilations: [2, 1, 1], pads: [1, 0, 2, 0, 1, 0], kernel_shape: [2, 3, 1] };
    const linear = node('Conv', 'c', ['x', 'w'], ['y'], attributes);
    await assertReadRight(oneNode(linear, { w: values([5, 2, 2, 3, 1]) }), values([1, 2, 5, 8, 7], 2), 'uneven axes');
  });

  it('Gemm: transB, alpha, beta, and every shape of C that is one value an output', async () => {
    const [rows, fanIn, units] = [3, 4, 5];
    for (const transB of [0, 1]) {
      for (const alpha of [1, 0.5]) {
        for (const cShape of [undefined, [], [1], [1, 1], [units], [1, units]]) {
          const c = cShape === undefined ? {} : { c: values(cShape, 3) };
          const linear = node('Gemm', 'g', ['x', 'w', ...Object.keys(c)], ['y'], {
            transB,
            alpha: { float: alpha },
            beta: { float: 2.5 },
          });
          const w = values(transB === 1 ? [units, fanIn] : [fanIn, units], 2);
          await assertReadRight(
            oneNode(linear, { w, ...c }),
            values([rows, fanIn]),
            `${transB} ${alpha} C [${String(cShape)}]`,
          );
        }
      }
    }
  });

  it('MatMul: any leading dimensions', async () => {
    const files = oneNode(node('MatMul', 'm', ['x', 'w'], ['y']), { w: values([4, 5]) });
    for (const leading of [[], [1], [3], [2, 3], [2, 1, 3]]) {
      await assertReadRight(files, values([...leading, 4], 2), `leading [${leading.join()}]`);
    }
  });

  it('weights of a Constant node, unnamed nodes and the long name of the standard domain count as well', async () => {
    const made = node('Constant', '', [], ['w']);
    const w = values([4, 5]);
    made.attribute = [{ name: 'value', type: 4, t: { dims: [4, 5], dataType: 1, floatData: [...w.data] } }];
    const files = writeModel({
      nodes: [made, { ...node('MatMul', '', ['x', 'w'], ['y']), domain: 'ai.onnx' }],
      inputs: [valueInfoProto('x', 'float32')],
      outputs: [valueInfoProto('y', 'float32')],
      constants: [],
    });
    await assertReadRight(files, values([2, 4], 2), 'Constant');
    const [report] = findCodable(await loadModel(files)) as [Codable];
    assert.equal(report.node, 'MatMul_1');
  });

  it('outputShape refuses what ONNX Runtime refuses: an input smaller than the kernel', async () => {
    const files = oneNode(node('Conv', 'c', ['x', 'w'], ['y']), { w: values([2, 2, 3, 3]) });
    const [report] = findCodable(await loadModel(files)) as [Codable];
    const x = float32([1, 2, 2, 5], new Float32Array(20));
    await assert.rejects(runModel(files, { x }));
    assert.throws(() => outputShape(report.layer(), x.shape), KofnError);
  });
});
