/** Pictures as a model's input, as `kofn run` makes them of files: only the size is made to fit here, by the browser. */
import type { ModelLine, ValueLine } from '../protocol.js';

export interface ImageInput {
  readonly name: string;
  readonly datatype: 'FP32' | 'FP64' | 'UINT8';
  readonly layout: 'nchw' | 'nhwc';
  readonly channels: 1 | 3 | 4;
  readonly width: number;
  readonly height: number;
  /** Whether the first axis is a batch. */
  readonly isBatch: boolean;
}

/** value = (pixel · scale - mean) / std, per channel; pixels are 0 to 255. UINT8 inputs take pixels as they are. */
export interface Preprocessing {
  readonly scale: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** Light becomes dark, before all else: for models of white on black. */
  readonly isInverted: boolean;
}

export const DEFAULT_PREPROCESSING: Preprocessing = { scale: 1 / 255, mean: [0], std: [1], isInverted: false };

/** Where a model leaves its size open. */
const OPEN_SIZE = 224;
const DATATYPES: Readonly<Record<string, ImageInput['datatype']>> = {
  float32: 'FP32',
  float64: 'FP64',
  uint8: 'UINT8',
};

/** How `model` takes a picture; undefined when it has not exactly one input, or that is none. */
export function imageInputOf({ inputs }: Pick<ModelLine, 'inputs'>): ImageInput | undefined {
  const [input] = inputs;
  return input === undefined || inputs.length > 1 ? undefined : imageInput(input);
}

function imageInput({ name, dtype, shape }: ValueLine): ImageInput | undefined {
  const datatype = DATATYPES[dtype];
  const isBatch = shape.length === 4;
  const sizes = isBatch ? shape.slice(1) : shape;
  if (datatype === undefined || sizes.length !== 3) return undefined;
  const [first, second, third] = sizes;
  const layout = isChannels(first) ? 'nchw' : isChannels(third) ? 'nhwc' : undefined;
  if (layout === undefined) return undefined;
  const [channels, height, width] = layout === 'nchw' ? [first, second, third] : [third, first, second];
  const size = (axis: number | string | undefined) => (typeof axis === 'number' ? axis : OPEN_SIZE);
  return {
    name,
    datatype,
    layout,
    channels: channels as 1 | 3 | 4,
    width: size(width),
    height: size(height),
    isBatch,
  };
}

function isChannels(size: number | string | undefined): boolean {
  return size === 1 || size === 3 || size === 4;
}

export function shapeOf({ layout, channels, width, height, isBatch }: ImageInput): number[] {
  return [...(isBatch ? [1] : []), ...(layout === 'nchw' ? [channels, height, width] : [height, width, channels])];
}

/** Little-endian bytes of the tensor; `rgba` has 4 bytes a pixel, rows from the top, of the input's size. */
export function tensorBytes(
  rgba: Uint8ClampedArray | Uint8Array,
  input: ImageInput,
  options: Preprocessing,
): Uint8Array {
  const { channels, layout, datatype } = input;
  const count = input.width * input.height;
  const bytes = new Uint8Array(count * channels * { FP32: 4, FP64: 8, UINT8: 1 }[datatype]);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < count; at++) {
    for (let channel = 0; channel < channels; channel++) {
      const index = layout === 'nchw' ? channel * count + at : at * channels + channel;
      const seen = pixel(rgba, at, channel, channels);
      const value = options.isInverted && channel < 3 ? 255 - seen : seen;
      if (datatype === 'UINT8') bytes[index] = Math.trunc(value);
      else if (datatype === 'FP32') view.setFloat32(4 * index, toModel(value, channel, options), true);
      else view.setFloat64(8 * index, toModel(value, channel, options), true);
    }
  }
  return bytes;
}

/** Grey by ITU-R BT.601; a pixel that is grey keeps its value to the last bit. */
function pixel(rgba: ArrayLike<number>, at: number, channel: number, channels: number): number {
  if (channels > 1) return rgba[4 * at + channel]!;
  const [red, green, blue] = [rgba[4 * at]!, rgba[4 * at + 1]!, rgba[4 * at + 2]!];
  return red === green && green === blue ? red : 0.299 * red + 0.587 * green + 0.114 * blue;
}

function toModel(value: number, channel: number, { scale, mean, std }: Preprocessing): number {
  return (value * scale - (mean[channel] ?? mean[0]!)) / (std[channel] ?? std[0]!);
}

/** What is done to a picture, as words. */
export function describe(input: ImageInput, { scale, mean, std, isInverted }: Preprocessing): string {
  const { datatype, channels, width, height } = input;
  const colours = { 1: 'grey (0.299 R + 0.587 G + 0.114 B)', 3: 'RGB', 4: 'RGBA' }[channels];
  const values = (each: readonly number[]) =>
    each.length === 1 ? figure(each[0]!) : `[${each.map(figure).join(', ')}]`;
  const factor = scale === 1 / 255 ? '/ 255' : `× ${figure(scale)}`;
  const isPlain = mean.every(each => each === 0) && std.every(each => each === 1);
  const scaled = isPlain ? `pixel ${factor}` : `(pixel ${factor} − ${values(mean)}) / ${values(std)}`;
  return [
    `the middle, ${width} × ${height}`,
    colours,
    ...(isInverted ? ['inverted'] : []),
    datatype === 'UINT8' ? 'pixels as they are' : scaled,
    `${datatype} [${shapeOf(input).join(', ')}]`,
  ].join(' · ');
}

function figure(value: number): string {
  return String(Number(value.toPrecision(4)));
}

/** `text` as one number for all channels, or one for each; undefined when it is neither. */
export function perChannel(text: string, channels: number): number[] | undefined {
  const values = text.split(',').map(part => (part.trim() === '' ? NaN : Number(part)));
  const isRight = values.every(Number.isFinite) && (values.length === 1 || values.length === channels);
  return isRight ? values : undefined;
}

/** The largest part of a picture in the middle that has the input's proportions. */
export function middleOf(
  picture: { readonly width: number; readonly height: number },
  { width, height }: Pick<ImageInput, 'width' | 'height'>,
): { x: number; y: number; width: number; height: number } {
  const scale = Math.min(picture.width / width, picture.height / height);
  const [w, h] = [width * scale, height * scale];
  return { x: (picture.width - w) / 2, y: (picture.height - h) / 2, width: w, height: h };
}
