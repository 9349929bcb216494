/** Pictures (.png, .jpg) as model inputs: never resized, so that what the model sees is what the file holds. */
import { elementCount, formatShape, KofnError, tensor, type DType, type Tensor } from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import jpeg from 'jpeg-js';
import { PNG } from 'pngjs';

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

/** Rows from the top, 4 bytes a pixel: red, green, blue, alpha. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgba: Uint8Array;
}

const JPEG_MEGAPIXELS = 200;
const JPEG_MEMORY_MB = 2048;

/** Throws INVALID_ARGUMENT when `bytes` are not a picture of that format. */
export function decodePicture(bytes: Uint8Array, format: 'png' | 'jpeg', origin: string): Picture {
  try {
    const { width, height, data } =
      format === 'png'
        ? PNG.sync.read(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
        : jpeg.decode(bytes, {
            useTArray: true,
            formatAsRGBA: true,
            maxResolutionInMP: JPEG_MEGAPIXELS,
            maxMemoryUsageInMB: JPEG_MEMORY_MB,
          });
    return { width, height, rgba: data };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new KofnError('INVALID_ARGUMENT', `${origin} is not a ${format.toUpperCase()} picture: ${why}`, {
      cause: error,
    });
  }
}

/**
 * `picture` as the input `info` of rank 4 (batch 1) or 3: grey (ITU-R BT.601 luma), RGB or RGBA by the model's number of channels;
 * alpha is dropped otherwise. Throws SHAPE_MISMATCH (rank, size or channels; both sizes named), DTYPE_MISMATCH (the input holds no
 * pixels), INVALID_ARGUMENT (mean or std).
 */
export function pictureTensor(picture: Picture, info: ValueInfo, options: ImageOptions, origin: string): Tensor {
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
  const planar = pixels(picture, channels, layout, toValue);
  const batch = info.shape.length === 4 ? [1] : [];
  const shape = [...batch, ...(layout === 'nchw' ? [channels, height, width] : [height, width, channels])];
  if (info.dtype === 'float32') return tensor(info.dtype, shape, Float32Array.from(planar));
  return tensor(info.dtype, shape, info.dtype === 'float64' ? planar : Uint8Array.from(planar));
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
  if (dtype !== 'float32' && dtype !== 'float64') {
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

function pixels(
  { width, height, rgba }: Picture,
  channels: number,
  layout: ImageLayout,
  toValue: (pixel: number, channel: number) => number,
): Float64Array {
  const count = width * height;
  const values = new Float64Array(elementCount([channels, count]));
  for (let at = 0; at < count; at++) {
    const [red, green, blue] = [rgba[4 * at]!, rgba[4 * at + 1]!, rgba[4 * at + 2]!];
    for (let channel = 0; channel < channels; channel++) {
      // A grey pixel keeps its value to the last bit: the weights would round it.
      const grey = red === green && green === blue ? red : 0.299 * red + 0.587 * green + 0.114 * blue;
      const pixel = channels === 1 ? grey : rgba[4 * at + channel]!;
      values[layout === 'nchw' ? channel * count + at : at * channels + channel] = toValue(pixel, channel);
    }
  }
  return values;
}
