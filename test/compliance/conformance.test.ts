/**
 * The ONNX conformance cases of Conv, Gemm and MatMul, from Debian's package libonnx-testdata: each with its weights
 * made constant, coded with losses, gives the output that comes with it. Those too small to be split stay local and
 * count apart.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { tensorFromBytes, type Tensor, type Tensors } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import onnxProto from 'onnx-proto';
import { lossyCluster, runLossy, type LossyCluster } from '../support/lossy-cluster.js';
import { assertClose, largest, toleranceOn } from '../support/single-node.js';

const { onnx } = onnxProto;
const DATA = '/usr/share/libonnx-testdata/data';
/** The operators' own cases, and layers that PyTorch exported, whose weights are constant already. */
const FOLDERS: Record<string, RegExp> = {
  node: /^test_(basic_conv_|conv_|gemm_|matmul_)/,
  'pytorch-converted': /^test_(Conv[123]d|Linear_no_bias)/, // Linear is a Gemm of opset 6, which ONNX Runtime has not
  'pytorch-operator': /^test_operator_conv$/,
};

interface Variant {
  readonly model: Uint8Array;
  readonly feeds: Tensors;
  readonly expected: Tensor;
  /** Outputs (of a group) that a code can split. */
  readonly split: number;
}

describe('ONNX conformance cases, coded with losses', () => {
  if (!existsSync(DATA)) {
    it('needs the Debian package libonnx-testdata (npm run setup:debian)');
    return;
  }
  const clusters: LossyCluster[] = [];
  before(async () => {
    for (const lost of [[1], [0, 2]]) clusters.push(await lossyCluster(lost));
  });
  after(async () => {
    for (const cluster of clusters) await cluster[Symbol.asyncDispose]();
  });

  const runs = { coded: 0, local: 0 };
  for (const [folder, pattern] of Object.entries(FOLDERS)) {
    for (const name of readdirSync(path.join(DATA, folder)).filter(entry => pattern.test(entry))) {
      for (const [constants, variant] of Object.entries(variantsOf(path.join(DATA, folder, name)))) {
        it(`${folder}/${name}, ${constants} constant`, async () => {
          for (const lossy of clusters) {
            const k = lossy.sound.length;
            const { outputs, layers } = await runLossy(lossy, variant.model, variant.feeds);
            const [layer] = layers;
            assert.equal(layer?.decision, variant.split >= k ? 'coded' : 'local', layer?.reason);
            runs[layer.decision]++;
            const [y] = Object.values(outputs);
            // |y| is at most ‖w_row‖·‖x‖, so this asks for more than docs/math.md does.
            const limit = toleranceOn(lossy, variant.expected) * largest(variant.expected);
            assertClose(y!, variant.expected, limit, `k = ${k}`);
          }
        });
      }
    }
  }

  it('most of them were coded', () => {
    assert.ok(runs.coded >= 60 && runs.coded > runs.local, `${runs.coded} coded, ${runs.local} local`);
  });
});

/** A case by what is made constant: its weights, and for Gemm also its addend; MatMul's weights may be either factor. */
function variantsOf(folder: string): Record<string, Variant> {
  const model = readFileSync(path.join(folder, 'model.onnx'));
  const graph = onnx.ModelProto.decode(model).graph!;
  const node = graph.node!.find(({ opType }) => ['Conv', 'Gemm', 'MatMul'].includes(opType!))!;
  const constants = new Set(graph.initializer!.map(({ name }) => name!));
  const read = (file: string) => readFileSync(path.join(folder, 'test_data_set_0', file));
  const fed = graph.input!.map(({ name }) => name!).filter(name => !constants.has(name));
  const values = Object.fromEntries(fed.map((name, i) => [name, read(`input_${i}.pb`)]));
  const expected = tensorOf(read('output_0.pb'));

  const [a = '', b = '', c] = node.input!;
  const choices = constants.size > 0 ? [[]] : [[b], ...(c ? [[b, c]] : []), ...(node.opType === 'MatMul' ? [[a]] : [])];
  return Object.fromEntries(
    choices.map(chosen => [
      [...constants, ...chosen].join(' and '),
      {
        model: chosen.length > 0 ? withConstants(model, values, chosen) : model,
        feeds: Object.fromEntries(
          fed.filter(name => !chosen.includes(name)).map(name => [name, tensorOf(values[name]!)]),
        ),
        expected,
        split: splitOf(node, expected, chosen[0] === a ? -2 : -1),
      },
    ]),
  );
}

/** `model` with the inputs `chosen` turned into initializers. */
function withConstants(model: Uint8Array, values: Record<string, Uint8Array>, chosen: readonly string[]): Uint8Array {
  const proto = onnx.ModelProto.decode(model);
  const graph = proto.graph!;
  graph.input = graph.input!.filter(({ name }) => !chosen.includes(name!));
  graph.initializer = chosen.map(name => onnx.TensorProto.create({ ...onnx.TensorProto.decode(values[name]!), name }));
  return onnx.ModelProto.encode(proto).finish();
}

/** What a code can split: a group's channels, a matrix's outputs along `axis`, nothing of a batch of matrices. */
function splitOf({ opType, attribute }: onnxProto.onnx.INodeProto, { shape }: Tensor, axis: number): number {
  if (opType === 'Conv') return shape[1]! / Number(attribute!.find(({ name }) => name === 'group')?.i ?? 1);
  return shape.length === 2 ? shape.at(axis)! : 0;
}

function tensorOf(bytes: Uint8Array): Tensor {
  const { dims, dataType, rawData, floatData } = onnx.TensorProto.decode(bytes);
  assert.equal(dataType, onnx.TensorProto.DataType.FLOAT);
  const raw = rawData?.length ? rawData : new Uint8Array(Float32Array.from(floatData).buffer);
  return tensorFromBytes('float32', dims.map(Number), raw);
}
