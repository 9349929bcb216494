/** A network of fully connected layers with ReLU between them and random weights, as an ONNX file with its weights beside it. */
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { seededRng } from '@kofn/core';
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;

const FLOAT = 1;
const INT = 2;
/** Weights start at multiples of this, so that an engine can map them. */
const PAGE_BYTES = 4096;

/** Writes it to `folder`; `widths` are those of the input and of each layer's output. Returns the file; its input is `x`. */
export function writeDenseNetwork(folder: string, widths: readonly number[]): string {
  const rng = seededRng(1);
  const file = openSync(path.join(folder, 'weights.bin'), 'w');
  let end = 0;
  const constant = (name: string, dims: number[], scale: number) => {
    const values = Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => scale * (rng.uniform() - 0.5));
    const offset = Math.ceil(end / PAGE_BYTES) * PAGE_BYTES;
    writeSync(file, values, 0, values.byteLength, offset);
    end = offset + values.byteLength;
    const about = { location: 'weights.bin', offset, length: values.byteLength };
    const externalData = Object.entries(about).map(([key, value]) => ({ key, value: String(value) }));
    return { name, dims, dataType: FLOAT, dataLocation: 1, externalData };
  };
  const layers = widths.slice(1).map((units, index) => ({ units, fanIn: widths[index]!, index }));
  try {
    const initializer = layers.flatMap(({ units, fanIn, index }) => [
      constant(`w${index}`, [units, fanIn], Math.sqrt(12 / fanIn)),
      constant(`b${index}`, [units], 1),
    ]);
    const node = layers.flatMap(({ index }) => [
      {
        opType: 'Gemm',
        name: `fc${index}`,
        input: [index === 0 ? 'x' : `r${index - 1}`, `w${index}`, `b${index}`],
        output: [index === layers.length - 1 ? 'y' : `y${index}`],
        attribute: [{ name: 'transB', type: INT, i: 1 }],
      },
      ...(index === layers.length - 1
        ? []
        : [{ opType: 'Relu', name: `relu${index}`, input: [`y${index}`], output: [`r${index}`] }]),
    ]);
    const value = (name: string, width: number) => ({
      name,
      type: { tensorType: { elemType: FLOAT, shape: { dim: [{ dimParam: 'rows' }, { dimValue: width }] } } },
    });
    const model = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'dense',
        node,
        initializer,
        input: [value('x', widths[0]!)],
        output: [value('y', widths.at(-1)!)],
      },
    });
    const modelFile = path.join(folder, 'model.onnx');
    writeFileSync(modelFile, onnx.ModelProto.encode(model).finish());
    return modelFile;
  } finally {
    closeSync(file);
  }
}
