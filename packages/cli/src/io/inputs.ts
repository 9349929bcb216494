/** The model's inputs from files and seeds, checked before anything starts. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import {
  elementBytes,
  elementCount,
  formatShape,
  isFiniteTensor,
  KofnError,
  seededRng,
  type Tensor,
  type Tensors,
} from '@kofn/core';
import type { OnnxModel, ValueInfo } from '@kofn/graph';
import { checkInputs } from '@kofn/master';
import type { InputFile, Shapes } from '../options/arguments.js';
import { fileKind } from './file-kind.js';
import { pictureTensor, type ImageOptions } from './image.js';
import { readNpy } from './npy.js';
import { readOnnxTensor } from './onnx-tensor.js';
import { openPicture } from './picture.js';
import { randomTensor } from './random-tensor.js';
import { note } from '../terminal/progress.js';

export interface InputOptions {
  readonly files: readonly InputFile[];
  /** Seed for inputs that no file gives. */
  readonly seed?: number | undefined;
  /** Of inputs whose sizes the model leaves open. */
  readonly shapes?: Shapes | undefined;
  readonly image: ImageOptions;
  /** Refuses NaN and infinities. */
  readonly checkFinite: boolean;
}

export interface InputSource {
  /** Whether requests differ: at least one input is drawn. */
  readonly drawn: boolean;
  /** What request `request` runs on. Drawn inputs take the seed + `request`. */
  readonly forRequest: (request: number) => Tensors;
  /** Sizes that nobody gave, in a line for the user. */
  readonly assumed: string | undefined;
}

/** The model's inputs, and of those that it gives a value itself the ones that `files` name. */
export function takenInputs(model: OnnxModel, files: readonly InputFile[] = []): ValueInfo[] {
  return [...model.inputs, ...model.overridable.filter(({ name }) => files.some(file => file.name === name))];
}

/** An input may not take more: it is made in memory. */
const MAX_INPUT_BYTES = 2 ** 31;

/**
 * `expected` with the sizes that `shapes` give them, and those of the same names in other inputs. Throws INVALID_ARGUMENT: no such input,
 * one that has other sizes, or more than 2 GiB.
 */
export function withShapes(expected: readonly ValueInfo[], shapes: Shapes = {}): ValueInfo[] {
  const named = new Map<string, number>();
  for (const [name, sizes] of Object.entries(shapes)) {
    const input = expected.find(info => info.name === name);
    const option = `--shape ${name}=${sizes.join(',')}`;
    if (input === undefined) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        `${option}: the model has no input "${name}"; it takes ${wordsOf(expected)}`,
      );
    }
    const { dtype, shape } = input;
    const isOpen = shape.length === 0;
    if (
      !isOpen &&
      !(shape.length === sizes.length && shape.every((size, axis) => typeof size === 'string' || size === sizes[axis]))
    ) {
      throw new KofnError('INVALID_ARGUMENT', `${option}: the model takes ${wordsOf([input])}`);
    }
    if (elementCount(sizes) * (dtype === 'string' ? 8 : elementBytes(dtype)) > MAX_INPUT_BYTES) {
      throw new KofnError('INVALID_ARGUMENT', `${option}: that is more than 2 GiB; give smaller sizes`);
    }
    shape.forEach((size, axis) => void (typeof size === 'string' && size !== '' && named.set(size, sizes[axis]!)));
  }
  return expected.map(input => ({
    ...input,
    shape: shapes[input.name] ?? input.shape.map(size => (typeof size === 'string' ? (named.get(size) ?? size) : size)),
  }));
}

function wordsOf(expected: readonly ValueInfo[]): string {
  return expected.map(({ name, dtype, shape }) => `${name}: ${dtype} ${formatShape(shape)}`).join('; ');
}

/** One line that says with which sizes `taken` has inputs whose sizes nobody has given; undefined where there are none. */
export function assumedSizes(expected: readonly ValueInfo[], taken: Tensors): string | undefined {
  const [first, ...more] = expected.filter(({ shape }) => shape.some(size => typeof size === 'string'));
  if (first === undefined) return undefined;
  const words = ({ name, shape }: ValueInfo) => `"${name}" ${formatShape(shape)} as ${formatShape(taken[name]!.shape)}`;
  const others = `say others with --shape ${first.name}=${shapeExample(first)}`;
  return `open sizes were assumed: ${[first, ...more].map(words).join(', ')}; ${others}`;
}

/** What --shape takes for an input, with the names of open sizes. */
export function shapeExample({ shape }: ValueInfo): string {
  return shape.map(size => (size === '' ? '?' : size)).join(',');
}

/**
 * Reads and checks all inputs of a model that takes `expected`. Throws INVALID_ARGUMENT (unknown or missing name, unreadable
 * format), NOT_FOUND (file), SHAPE_MISMATCH, DTYPE_MISMATCH, NON_FINITE, DATA_LOSS, UNSUPPORTED: each names the input and the file.
 */
export async function openInputs(inputs: readonly ValueInfo[], options: InputOptions): Promise<InputSource> {
  const { files, seed, shapes, checkFinite } = options;
  const takes = wordsOf(inputs);
  const expected = withShapes(inputs, shapes);
  const given: Record<string, Tensor> = {};
  for (const { name, file } of files) {
    const info = expected.find(input => input.name === name);
    if (info === undefined) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        `--input ${name}=${file}: the model has no input "${name}"; it takes ${takes}`,
      );
    }
    const value = fitRank(await readInput(info, file, options.image), info);
    checkOne(info, value, file);
    if (checkFinite && !isFiniteTensor(value)) {
      throw new KofnError('NON_FINITE', `${file}: input "${name}" has NaN or infinite elements (--check-finite)`);
    }
    given[name] = value;
  }
  const missing = expected.filter(({ name }) => given[name] === undefined);
  if (missing.length > 0 && seed === undefined) {
    const names = missing.map(({ name }) => `"${name}"`).join(', ');
    throw new KofnError(
      'INVALID_ARGUMENT',
      `input ${names} is missing; give --input ${missing[0]!.name}=FILE, or --random SEED. The model takes ${takes}`,
    );
  }
  const open = new OpenSizes(expected, given);
  const forRequest = (request: number): Tensors => {
    if (missing.length === 0) return given;
    const rng = seededRng(seed! + request);
    const random = missing.map(info => [info.name, randomTensor(info.dtype, open.shapeOf(info), rng)] as const);
    return { ...given, ...Object.fromEntries(random) };
  };
  const first = forRequest(0);
  checkInputs(expected, first);
  const assumed = assumedSizes(
    missing.filter(info => !open.isKnown(info)),
    first,
  );
  return { drawn: missing.length > 0, forRequest, assumed };
}

async function readInput(info: ValueInfo, file: string, image: ImageOptions): Promise<Tensor> {
  const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
    const whys: Record<string, string> = { ENOENT: 'does not exist', ERR_FS_FILE_TOO_LARGE: 'is larger than 2 GiB' };
    const why = whys[cause.code ?? ''] ?? `cannot be read (${cause.code})`;
    throw new KofnError('NOT_FOUND', `--input ${info.name}=${file}: the file ${why}`, { cause });
  });
  if (bytes.length === 0) throw new KofnError('DATA_LOSS', `--input ${info.name}=${file}: the file is empty`);
  const kind = fileKind(bytes);
  if (kind?.holds === 'array') return readNpy(bytes, file);
  if (kind?.holds === 'picture') {
    const { tensor, remarks } = await pictureTensor(await openPicture(bytes, kind, file), info, image, file);
    if (remarks.length > 0) note(`${file}: ${remarks.join('; ')}`);
    return tensor;
  }
  if (kind !== undefined) {
    throw new KofnError('UNSUPPORTED', `${file} is ${kind.format}, which is no input; ${kind.advice}`);
  }
  if (path.extname(file).toLowerCase() === '.pb') return readOnnxTensor(bytes, file); // these begin with no signature
  throw new KofnError(
    'INVALID_ARGUMENT',
    `--input ${info.name}=${file}: by its first bytes the file is neither NumPy's .npy nor a picture; ` +
      `an ONNX TensorProto has to be named .pb`,
  );
}

/** One example for a model of batches: a leading axis of size 1 where the model has exactly one axis more. */
function fitRank(value: Tensor, { shape }: ValueInfo): Tensor {
  const oneMore = shape.length === value.shape.length + 1 && (typeof shape[0] !== 'number' || shape[0] === 1);
  return oneMore ? { ...value, shape: [1, ...value.shape] } : value;
}

function checkOne(info: ValueInfo, value: Tensor, file: string): void {
  try {
    checkInputs([info], { [info.name]: value });
  } catch (error) {
    if (!(error instanceof KofnError)) throw error;
    const hint = error.code === 'DTYPE_MISMATCH' ? `; convert it, e.g. x.astype('${info.dtype}')` : '';
    throw new KofnError(error.code, `${file}: ${error.message}${hint}`, { cause: error });
  }
}

/** Sizes that the model leaves open: as in another input where they have the same name, else 1. */
class OpenSizes {
  readonly #sizes = new Map<string, number>();

  constructor(expected: readonly ValueInfo[], given: Tensors) {
    for (const { name, shape } of expected) {
      const value = given[name];
      shape.forEach((size, axis) => {
        const actual = value?.shape[axis];
        if (typeof size === 'string' && size !== '' && actual !== undefined) this.#sizes.set(size, actual);
      });
    }
  }

  /** Whether no size has to be assumed. */
  isKnown({ shape }: ValueInfo): boolean {
    return shape.every(size => typeof size === 'number' || this.#sizes.has(size));
  }

  shapeOf({ shape }: ValueInfo): number[] {
    return shape.map(size => (typeof size === 'number' ? size : (this.#sizes.get(size) ?? 1)));
  }
}
