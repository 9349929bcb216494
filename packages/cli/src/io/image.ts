/** Pictures as model inputs: never resized, so that what the model sees is what the file holds. */
import { elementCount, formatShape, KofnError, tensor, type DType, type Tensor } from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import type { PictureFile } from './picture.js';

export const IMAGE_LAYOUTS = ['nchw', 'nhwc'] as const;
export type ImageLayout = (typeof IMAGE_LAYOUTS)[number];

/** value = (pixel · scale - mean) / std, per channel; pixels are 0 to 255. */
export interface ImageOptions {
  readonly layout: ImageLayout;
  /** Default 1/255 for floating-point inputs; uint8 inputs take pixels as they are. */
  readonly scale?: number | undefined;
  /** One number for all channels or one for each. Default 0. */
  readonly mean?: readonly number[] | undefined;
  /** As `mean`. Default 1. */
  readonly std?: readonly number[] | undefined;
}

/** What can hold pixels. */
const ARRAYS = { float32: Float32Array, float64: Float64Array, uint8: Uint8Array } as const;

/** A picture as a tensor, and what it does not tell: see PictureFile. */
export interface PictureInput {
  readonly tensor: Tensor;
  readonly remarks: readonly string[];
}

/**
 * `picture` as the input `info` of rank 4 (batch 1) or 3: grey (ITU-R BT.601 luma), RGB or RGBA by the model's number of channels; what
 * is transparent is laid over white where the model takes no alpha. It is decoded only when it fits. Throws SHAPE_MISMATCH (rank, size or
 * channels; both sizes named), DTYPE_MISMATCH (the input holds no pixels), INVALID_ARGUMENT (mean or std), DATA_LOSS (damaged).
 */
export async function pictureTensor(
  picture: PictureFile,
  info: ValueInfo,
  options: ImageOptions,
  origin: string,
): Promise<PictureInput> {
  const { layout } = options;
  const { width, height } = picture;
  const sizes = info.shape.length === 4 ? info.shape.slice(1) : info.shape;
  if (sizes.length !== 3) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `${origin} is a picture, but input "${info.name}" has shape ${formatShape(info.shape)}: ` +
        `a picture needs [N,C,H,W] or [C,H,W] (--layout nchw), or the same with C last (nhwc)`,
    );
  }
  const [c, h, w] = layout === 'nchw' ? sizes : [sizes[2], sizes[0], sizes[1]];
  if ((typeof w === 'number' && w !== width) || (typeof h === 'number' && h !== height)) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `${origin} is ${width}x${height} (width x height), input "${info.name}" takes ${w || 'any'}x${h || 'any'} ` +
        `(${layout}, ${formatShape(info.shape)}); resize the picture, kofn does not`,
    );
  }
  const channels = typeof c === 'number' ? c : 3;
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `${origin} has 1, 3 or 4 channels, input "${info.name}" takes ${channels} (${layout}, ${formatShape(info.shape)}); ` +
        `is --layout right?`,
    );
  }
  const toValue = converter(info.dtype, channels, options, `${origin}: input "${info.name}"`);
  const rgba = await picture.rgba();
  const isComposed = channels < 4 && layOverWhite(rgba);
  const batch = info.shape.length === 4 ? [1] : [];
  const shape = [...batch, ...(layout === 'nchw' ? [channels, height, width] : [height, width, channels])];
  const values = new ARRAYS[info.dtype as keyof typeof ARRAYS](elementCount(shape));
  fill(values, rgba, channels, layout, toValue);
  return {
    tensor: tensor(info.dtype, shape, values),
    remarks: [...picture.remarks, ...(isComposed ? ['transparent, laid over white'] : [])],
  };
}

/** From a channel's pixel to the model's value. */
function converter(
  dtype: DType,
  channels: number,
  { scale, mean, std }: ImageOptions,
  what: string,
): (pixel: number, channel: number) => number {
  if (dtype === 'uint8') {
    if ((scale ?? mean ?? std) === undefined) return pixel => pixel;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${what} is uint8 and takes pixels as they are; leave out --scale, --mean, --std`,
    );
  }
  if (!Object.hasOwn(ARRAYS, dtype)) {
    throw new KofnError('DTYPE_MISMATCH', `${what} is ${dtype}; a picture becomes float32, float64 or uint8`);
  }
  const means = perChannel('--mean', mean ?? [0], channels, what);
  const stds = perChannel('--std', std ?? [1], channels, what);
  const factor = scale ?? 1 / 255;
  if (stds.includes(0)) throw new KofnError('INVALID_ARGUMENT', `${what}: --std 0 divides by zero`);
  return (pixel, channel) => (pixel * factor - means[channel]!) / stds[channel]!;
}

function perChannel(option: string, values: readonly number[], channels: number, what: string): readonly number[] {
  if (values.length === channels) return values;
  if (values.length === 1) return new Array<number>(channels).fill(values[0]!);
  throw new KofnError(
    'INVALID_ARGUMENT',
    `${what} has ${channels} channel${channels === 1 ? '' : 's'}, ${option} has ${values.length} values; give one, or one for each`,
  );
}

/** Makes every pixel opaque; whether any was not. */
function layOverWhite(rgba: Uint8Array): boolean {
  let isTransparent = false;
  for (let at = 0; at < rgba.length; at += 4) {
    const alpha = rgba[at + 3]! / 255;
    if (alpha === 1) continue;
    isTransparent = true;
    for (let i = at; i < at + 3; i++) rgba[i] = Math.round(rgba[i]! * alpha + 255 * (1 - alpha));
    rgba[at + 3] = 255;
  }
  return isTransparent;
}

function fill(
  values: Float32Array | Float64Array | Uint8Array,
  rgba: Uint8Array,
  channels: number,
  layout: ImageLayout,
  toValue: (pixel: number, channel: number) => number,
): void {
  const count = rgba.length / 4;
  for (let at = 0; at < count; at++) {
    const [red, green, blue] = [rgba[4 * at]!, rgba[4 * at + 1]!, rgba[4 * at + 2]!];
    for (let channel = 0; channel < channels; channel++) {
      // A grey pixel keeps its value to the last bit: the weights would round it.
      const grey = red === green && green === blue ? red : 0.299 * red + 0.587 * green + 0.114 * blue;
      const pixel = channels === 1 ? grey : rgba[4 * at + channel]!;
      values[layout === 'nchw' ? channel * count + at : at * channels + channel] = toValue(pixel, channel);
    }
  }
}
