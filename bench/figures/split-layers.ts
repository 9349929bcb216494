/**
 * The ways to split a layer over workers: what the worker with the most of it takes, gives and computes, all from the shapes. One sample,
 * float32; a convolution keeps the size of its input, stride 1.
 */
import type { Shape } from '@kofn/core';
import type { LinearLayer } from '@kofn/graph';

export type Layer =
  | { readonly name: string; readonly fc: readonly [number, number] }
  | { readonly name: string; readonly conv: Convolution };

export interface Convolution {
  /** Out, in. */
  readonly channels: readonly [number, number];
  readonly kernel: number;
  /** Height and width. */
  readonly size: number;
}

/** A layer without its weights, and the shape of its input. */
export interface Part {
  readonly layer: Omit<LinearLayer, 'weights' | 'bias' | 'name'>;
  readonly input: Shape;
}

export interface Split {
  /** How the picture calls it. */
  readonly name: string;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** What the worker that has most computes. */
  readonly part: Part;
  /** Whether a parity block of the weights does for the block of a worker that is lost. */
  readonly isCodable: boolean;
  readonly why: string;
}

const FLOAT_BYTES = 4;

export function wholeOf(layer: Layer): Part {
  if ('fc' in layer) return dense(...layer.fc);
  const { channels, kernel, size } = layer.conv;
  return convolution(channels[0], channels[1], kernel, [size, size], around(kernel));
}

/** Throws when the layer cannot be split so, or not evenly where it has to be. */
export function splitOf(layer: Layer, kind: string, workers: number): Split {
  if ('fc' in layer) {
    const [units, fanIn] = layer.fc;
    if (kind === 'output') {
      return split('by output', dense(share(units, workers), fanIn), share(units, workers), true, LINEAR);
    }
    if (kind === 'input') return split('by input', dense(units, share(fanIn, workers)), units, false, PARTIAL);
  } else {
    const { channels, kernel, size } = layer.conv;
    const [units, depth] = channels;
    const area = [size, size] as const;
    if (kind === 'channel') {
      const own = share(units, workers);
      return split(
        'by output channel',
        convolution(own, depth, kernel, area, around(kernel)),
        own * size ** 2,
        true,
        LINEAR,
      );
    }
    if (kind === 'depth') {
      const part = convolution(units, share(depth, workers), kernel, area, around(kernel));
      return split('by input channel', part, units * size ** 2, false, PARTIAL);
    }
    if (kind === 'space') return byRows(layer.conv, workers);
  }
  throw new Error(`${layer.name}: there is no split by ${kind}`);
}

const LINEAR = 'all have the same input, and blocks of weights add up';
const PARTIAL = 'partial sums of different inputs: a sum of blocks fits none';
const SPACE = 'all have the same weights: code the input instead';

function split(name: string, part: Part, outputs: number, isCodable: boolean, why: string): Split {
  const inputs = part.input.reduce((a, b) => a * b, 1);
  return { name, bytesIn: inputs * FLOAT_BYTES, bytesOut: outputs * FLOAT_BYTES, part, isCodable, why };
}

/** Bands of rows, and with each the rows beside it that the kernel reaches (the halo). Each figure of the worker that has most of it. */
function byRows({ channels: [units, depth], kernel, size }: Convolution, workers: number): Split {
  const [before, after] = reach(kernel);
  const bands = Array.from({ length: workers }, (_, worker) => {
    const [start, end] = [worker, worker + 1].map(edge => Math.ceil((edge * size) / workers)) as [number, number];
    const [top, bottom] = [Math.max(0, start - before), Math.min(size, end + after)];
    return { rows: end - start, held: bottom - top, pads: [before - (start - top), after - (bottom - end)] as const };
  });
  const most = bands.reduce((a, b) => (b.rows > a.rows ? b : a));
  const held = Math.max(...bands.map(band => band.held));
  const [padTop, padBottom] = most.pads;
  const part = convolution(units, depth, kernel, [most.held, size], [padTop, before, padBottom, after]);
  return {
    ...split('by space', part, units * most.rows * size, false, SPACE),
    bytesIn: depth * held * size * FLOAT_BYTES,
  };
}

function dense(units: number, fanIn: number): Part {
  return { layer: { operator: 'Gemm', units, fanIn }, input: [1, fanIn] };
}

function convolution(
  units: number,
  depth: number,
  kernel: number,
  [height, width]: readonly [number, number],
  pads: readonly number[],
): Part {
  return {
    layer: {
      operator: 'Conv',
      units,
      fanIn: depth * kernel ** 2,
      conv: { groups: 1, kernel: [kernel, kernel], strides: [1, 1], dilations: [1, 1], pads, autoPad: 'NOTSET' },
    },
    input: [1, depth, height, width],
  };
}

/** Before and after. */
function reach(kernel: number): [number, number] {
  const before = Math.floor((kernel - 1) / 2);
  return [before, kernel - 1 - before];
}

function around(kernel: number): number[] {
  const [before, after] = reach(kernel);
  return [before, before, after, after];
}

function share(count: number, workers: number): number {
  if (count % workers !== 0) throw new Error(`${count} cannot be shared by ${workers} workers evenly`);
  return count / workers;
}
