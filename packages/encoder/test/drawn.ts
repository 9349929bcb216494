/** Layers drawn from a seed with their coded blocks, and what sound engines reply to an input. */
import { seededRng, type Rng } from '@kofn/core';
import * as fc from 'fast-check';
import {
  createCode,
  encodeLayer,
  fingerprint,
  type Code,
  type EncodedBlock,
  type Fingerprint,
  type LayerEncoding,
  type Window,
} from '../src/index.js';

export const CODES: readonly Code[] = [
  createCode('uncoded', { k: 3, r: 0 }),
  createCode('replication', { k: 2, r: 2 }),
  createCode('sum', { k: 3, r: 1 }),
  createCode('rotation', { k: 3, r: 2 }),
];

/** The orders in which an engine may add: one after the other, in lanes, in a tree, from the end. */
export const ORDERS = ['forward', 'lanes', 'tree', 'backward'] as const;
export type Order = (typeof ORDERS)[number];

export interface Drawn {
  readonly groups: number;
  readonly fanIn: number;
  readonly blockUnits: number;
  readonly encoding: LayerEncoding;
  readonly blocks: readonly EncodedBlock[];
  readonly prints: readonly Fingerprint[];
  /** Inputs that the units of a group read, by batch, group and position; the input is made of them when it is dense. */
  readonly read: readonly (readonly Float32Array[])[];
  readonly x: Float32Array;
  readonly window: Window | undefined;
  readonly positions: number;
}

function sizes(length: number, places: readonly number[]): number[] {
  return Array.from({ length }, (_, i) => places[i]!);
}

export function draw(seed: number, code: Code): Drawn {
  const rng = seededRng(seed);
  const isConv = rng.integer(2) === 0;
  const dims = isConv ? 1 + rng.integer(3) : 0;
  const groups = isConv ? 1 + rng.integer(2) : 1;
  const kernel = Array.from({ length: dims }, () => 1 + rng.integer(3));
  const strides = Array.from({ length: dims }, () => 1 + rng.integer(2));
  const dilations = Array.from({ length: dims }, () => 1 + rng.integer(2));
  const pads = Array.from({ length: dims }, () => rng.integer(3));
  const input = kernel.map((size, i) => dilations[i]! * (size - 1) + 1 + rng.integer(5));
  const output = kernel.map((size, i) => {
    return Math.floor((input[i]! + 2 * pads[i]! - dilations[i]! * (size - 1) - 1) / strides[i]!) + 1;
  });
  const channels = isConv ? 1 + rng.integer(4) : [1, 7, 64, 300][rng.integer(4)]!;
  const fanIn = channels * count(kernel);
  const units = groups * (code.k + rng.integer(20));
  const value = kindOf(rng);
  const layer = {
    units,
    fanIn,
    groups,
    weights: Float32Array.from({ length: units * fanIn }, () => value() * 10 ** (rng.uniform() - 0.5)),
    ...(rng.integer(2) === 0 ? {} : { bias: Float32Array.from({ length: units }, value) }),
  };
  const encoding = encodeLayer(layer, code);
  const { blockUnits } = encoding.partition;
  const blocks = Array.from({ length: code.n }, (_, block) => encoding.block(block));
  const prints = blocks.map(block => fingerprint(block, { groups, blockUnits, fanIn }, bytesOf(rng)));
  const batch = 1 + rng.integer(3);
  const x = Float32Array.from({ length: batch * groups * channels * count(input) }, value);
  const positions = count(output);
  const window = isConv ? { kernel, strides, dilations, pads, input, output } : undefined;
  const read = Array.from({ length: batch * groups }, (_, slice) => {
    const own = x.subarray(slice * channels * count(input), (slice + 1) * channels * count(input));
    return window === undefined ? [own] : patches(own, channels, window);
  });
  return { groups, fanIn, blockUnits, encoding, blocks, prints, read, x, window, positions };
}

/** Normal, positive, or mostly zero, of a drawn size. */
function kindOf(rng: Rng): () => number {
  const size = 10 ** (6 * rng.uniform() - 3);
  const kind = rng.integer(3);
  return () => {
    if (kind === 0) return size * rng.normal();
    return size * (kind === 1 ? rng.uniform() : Math.max(0, rng.normal()));
  };
}

function bytesOf(rng: Rng) {
  return (length: number) => Uint8Array.from({ length }, () => rng.integer(256));
}

const count = (list: readonly number[]) => list.reduce((a, b) => a * b, 1);

/** What a filter reads at each output position, padding included; index by index. */
function patches(x: Float32Array, channels: number, { kernel, strides, dilations, pads, input, output }: Window) {
  const unravel = (index: number, shape: readonly number[]) => {
    const at = sizes(shape.length, shape);
    for (let i = shape.length - 1, rest = index; i >= 0; i--) {
      at[i] = rest % shape[i]!;
      rest = Math.floor(rest / shape[i]!);
    }
    return at;
  };
  return Array.from({ length: count(output) }, (_, position) => {
    const place = unravel(position, output);
    return Float32Array.from({ length: channels * count(kernel) }, (_unused, weight) => {
      const tap = unravel(weight % count(kernel), kernel);
      const at = place.map((p, i) => p * strides[i]! - pads[i]! + tap[i]! * dilations[i]!);
      if (at.some((index, i) => index < 0 || index >= input[i]!)) return 0;
      const channel = Math.floor(weight / count(kernel));
      return x[at.reduce((flat, index, i) => flat * input[i]! + index, channel)]!;
    });
  });
}

/** As an engine computes it, in float32. */
export function replyOf({ groups, blockUnits, fanIn, read, positions }: Drawn, block: EncodedBlock, order: Order) {
  const reply = new Float32Array(read.length * blockUnits * positions);
  read.forEach((slice, index) => {
    for (let unit = 0; unit < blockUnits; unit++) {
      const row = (index % groups) * blockUnits + unit;
      const weights = block.weights.subarray(row * fanIn, (row + 1) * fanIn);
      slice.forEach((values, p) => {
        const products = weights.map((weight, i) => weight * values[i]!);
        const sum = Math.fround(added(products, order) + (block.bias?.[row] ?? 0));
        reply[(index * blockUnits + unit) * positions + p] = sum;
      });
    }
  });
  return reply;
}

function added(terms: Float32Array, order: Order): number {
  if (order === 'forward') return terms.reduce((sum, term) => Math.fround(sum + term), 0);
  if (order === 'backward') return terms.reduceRight((sum, term) => Math.fround(sum + term), 0);
  if (order === 'lanes') {
    const lanes = new Float32Array(4);
    terms.forEach((term, i) => (lanes[i % 4]! += term));
    return added(lanes, 'forward');
  }
  if (terms.length <= 2) return added(terms, 'forward');
  const half = terms.length >> 1;
  return Math.fround(added(terms.subarray(0, half), 'tree') + added(terms.subarray(half), 'tree'));
}

export function rms(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

export const seeds = fc.integer({ min: 0, max: 2 ** 31 });
export const codes = fc.constantFrom(...CODES);
