/** The demonstration's network and pictures, which are part of this package (models/README says where they are from). */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { float32, KofnError, type Tensor, type Tensors } from '@kofn/core';
import { readNpy } from '../io/npy.js';

export interface DemoData {
  readonly modelPath: string;
  /** Input tensors of picture i: `image`, float32 [1,1,28,28], pixel / 255. */
  readonly inputs: (index: number) => Tensors;
  /** Class of picture i, 0 to 9. */
  readonly label: (index: number) => number;
  readonly count: number;
}

const at = (name: string) => fileURLToPath(new URL(`../../../models/${name}`, import.meta.url));

/** Throws NOT_FOUND when the package has no models folder (in a checkout: `npm run setup` copies it). */
export async function loadDemoData(): Promise<DemoData> {
  const images = await readArray('fashion-test-images.npy', 3);
  const labels = await readArray('fashion-test-labels.npy', 1);
  const [count = 0, height = 0, width = 0] = images.shape;
  const pixels = images.data as Uint8Array;
  return {
    modelPath: at('fashion-cnn.onnx'),
    inputs(index) {
      const start = index * height * width;
      const image = Float32Array.from(pixels.subarray(start, start + height * width), pixel => pixel / 255);
      return { image: float32([1, 1, height, width], image) };
    },
    label: index => Number(labels.data[index]),
    count,
  };
}

/** Index of the largest element. */
export function argmax({ data }: Tensor): number {
  let best = 0;
  for (let i = 1; i < data.length; i++) if (data[i]! > data[best]!) best = i;
  return best;
}

async function readArray(name: string, rank: number): Promise<Tensor> {
  const bytes = await readFile(at(name)).catch((cause: unknown) => {
    const message = `${at(name)} is missing; in a checkout run \`npm run setup\`, else install kofn again`;
    throw new KofnError('NOT_FOUND', message, { cause });
  });
  const array = readNpy(bytes, name);
  if (array.dtype === 'uint8' && array.shape.length === rank) return array;
  throw new KofnError('DATA_LOSS', `${name} is ${array.dtype} of rank ${array.shape.length}; install kofn again`);
}
