/** The pictures that come with kofn: the first 500 test images of Fashion-MNIST, and what each is. */
import imagesUrl from '../../../../models/fashion-test-images.npy?url';
import labelsUrl from '../../../../models/fashion-test-labels.npy?url';
import { uint8Array } from './npy.js';

export interface Samples {
  readonly count: number;
  readonly width: number;
  readonly height: number;
  readonly classes: number;
  picture(index: number): ImageData;
  /** The number of its class. */
  label(index: number): number;
}

/** Throws when they cannot be read. */
export async function loadSamples(): Promise<Samples> {
  const [images, labels] = await Promise.all([imagesUrl, labelsUrl].map(read));
  const [count = 0, height = 0, width = 0] = images!.shape;
  const pixels = width * height;
  return {
    count,
    width,
    height,
    classes: Math.max(...labels!.data) + 1,
    picture(index) {
      const rgba = new Uint8ClampedArray(4 * pixels).fill(255);
      for (let at = 0; at < pixels; at++) rgba.fill(images!.data[index * pixels + at]!, 4 * at, 4 * at + 3);
      return new ImageData(rgba, width, height);
    },
    label: index => labels!.data[index]!,
  };
}

async function read(url: string) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the sample pictures cannot be read: ${response.status}`);
  return uint8Array(await response.arrayBuffer());
}
