/**
 * What the fingerprints of a layer's blocks expect of replies to one input: each of their filters on it, in float64. This is the
 * master's own part of the work, so that its loops are what verification costs.
 *
 * Invariants
 * 1. Blocks become complete in their order, so that what is asked of the first does not wait for the last.
 * 2. `advance` takes a few milliseconds at most, whatever the size of the layer: its caller has an event loop.
 */
import type { Expectation, Fingerprint } from './fingerprint.js';
import { energy, products } from './products.js';

/** Where a convolution's filter stands; each list has one entry a spatial dimension. None for a dense layer. */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Zeros before the first element. */
  readonly pads: readonly number[];
  /** Sizes of the input and of the output. */
  readonly input: readonly number[];
  readonly output: readonly number[];
}

/** About so many multiply-accumulates are done at a time: less than a millisecond's, or a few on a small board. */
const PIECE = 2 ** 19;

/** Work in pieces: how large each was. */
export type Work = Generator<number, void>;

/** Groups and weights a unit of a layer. */
export interface Reads {
  readonly groups: number;
  readonly fanIn: number;
}

export class Expectations {
  readonly #results: readonly Expectation[];
  readonly #work: Work;
  /** Blocks that are complete, from the first. */
  #complete = 0;

  /** For `fingerprints`, which are of one layer: `x` is dense [batch][fanIn], or conv [batch][channels][...input], and never changed. */
  constructor(fingerprints: readonly Fingerprint[], x: Float32Array, window: Window | undefined) {
    const complete = () => void this.#complete++;
    const planned = plan(fingerprints[0]!, fingerprints, { x, window, complete });
    this.#results = planned.results;
    this.#work = planned.work;
  }

  has(block: number): boolean {
    return block < this.#complete;
  }

  /** Does one more piece; false when there was none left. */
  advance(): boolean {
    for (let done = 0; done < PIECE;) {
      const next = this.#work.next();
      if (next.done === true) return done > 0;
      done += next.value;
    }
    return true;
  }

  /** Of block `block`; what is missing of it is done now. */
  of(block: number): Expectation {
    while (!this.has(block) && this.advance());
    return this.#results[block]!;
  }
}

/** As `Expectation.energies` of any block, once `work` is done. */
export function inputEnergies(
  reads: Reads,
  x: Float32Array,
  window: Window | undefined,
): { readonly energies: Float64Array; readonly work: Work } {
  return plan(reads, [], { x, window, complete: () => undefined });
}

interface Given {
  readonly x: Float32Array;
  readonly window: Window | undefined;
  /** The next block is complete. */
  readonly complete: () => void;
}

interface Planned {
  readonly energies: Float64Array;
  readonly results: readonly Expectation[];
  readonly work: Work;
}

function plan(reads: Reads, fingerprints: readonly Fingerprint[], given: Given): Planned {
  const { window } = given;
  return window === undefined ? ofDense(reads, fingerprints, given) : ofConv(reads, fingerprints, { ...given, window });
}

function ofDense({ fanIn }: Reads, fingerprints: readonly Fingerprint[], { x, complete }: Given): Planned {
  const batch = x.length / fanIn;
  const energies = new Float64Array(batch);
  const results = fingerprints.map(({ rows }) => ({ sums: new Float64Array(batch * rows), energies }));
  const step = Math.max(1, Math.floor(PIECE / fanIn));
  function* work(): Work {
    for (let sample = 0; sample < batch; sample++) {
      const values = x.subarray(sample * fanIn, (sample + 1) * fanIn);
      energies[sample] = energy(values);
      yield fanIn;
      for (const [index, { rows, filters, biases }] of fingerprints.entries()) {
        const { sums } = results[index]!;
        for (let row = 0; row < rows; row += step) {
          const count = Math.min(step, rows - row);
          products(filters, row, count, values, sums, sample * rows + row);
          yield count * fanIn;
        }
        for (let row = 0; row < rows; row++) sums[sample * rows + row]! += biases[row]!;
        if (sample === batch - 1) complete();
      }
    }
  }
  return { energies, results, work: work() };
}

/** Where the elements of a padded channel are that a filter reads. */
interface Layout {
  /** Elements of a padded channel. */
  readonly size: number;
  /** Of each weight of a channel's kernel. */
  readonly taps: Int32Array;
  /** Where the input's rows, of the last dimension, begin in a padded channel; and their length. */
  readonly inputRows: readonly number[];
  readonly inputWidth: number;
  /** Where what the output's rows read begins, how long they are, and how far apart what two neighbours read is. */
  readonly outputRows: readonly number[];
  readonly outputWidth: number;
  readonly step: number;
  /** With all strides 1: one long stretch from the first row to the end of the last, of whose ends of rows nothing is taken. */
  readonly isOneStretch: boolean;
  /** Elements that a filter writes. */
  readonly length: number;
  /** Of each weight of a filter. */
  readonly places: Int32Array;
}

/** Of layers, and the window that it was for: inputs mostly have one size. */
const layouts = new WeakMap<Reads, { readonly key: string; readonly layout: Layout }>();

function layoutOf(reads: Reads, window: Window): Layout {
  const key = JSON.stringify(window);
  const known = layouts.get(reads);
  if (known?.key === key) return known.layout;
  const layout = makeLayout(reads, window);
  layouts.set(reads, { key, layout });
  return layout;
}

function ofConv(
  reads: Reads,
  fingerprints: readonly Fingerprint[],
  { x, window, complete }: Given & { readonly window: Window },
): Planned {
  const { groups, fanIn } = reads;
  const layout = layoutOf(reads, window);
  const { size, taps, length, places } = layout;
  const channels = fanIn / taps.length;
  const slices = x.length / (channels * layout.inputRows.length * layout.inputWidth); // batch · groups
  const positions = layout.outputRows.length * layout.outputWidth;
  const energies = new Float64Array(slices * positions);
  const results = fingerprints.map(({ rows }) => ({ sums: new Float64Array(slices * rows * positions), energies }));
  const padded = new Float64Array(channels * size);
  const squares = new Float64Array(size);
  const [one, other] = [new Float64Array(length), new Float64Array(length)];
  const ones = { filters: new Float32Array(taps.length).fill(1), at: 0 };
  const rowsOf = fingerprints.flatMap(({ rows }, block) => Array.from({ length: rows }, (_, row) => ({ block, row })));
  const piece = 4 * Math.max(1, Math.floor(PIECE / (8 * length)));
  function* work(): Work {
    for (let slice = 0; slice < slices; slice++) {
      const group = slice % groups;
      squares.fill(0);
      for (let channel = 0; channel < channels; channel++) {
        pad(x, slice * channels + channel, layout, padded, channel * size, squares);
        yield size;
      }
      one.fill(0);
      slide(ones, ones, { places: taps, first: 0, end: taps.length }, squares, layout, one, other);
      take(one, layout, energies, slice * positions);
      yield taps.length * length;
      const filter = ({ block, row }: { block: number; row: number }) => ({
        filters: fingerprints[block]!.filters,
        at: (group * fingerprints[block]!.rows + row) * fanIn,
      });
      for (let i = 0; i < rowsOf.length; i += 2) {
        const pair = rowsOf.slice(i, i + 2);
        const [a, b = a] = pair.map(filter); // one by itself takes no more time than two
        const outs = [one, other];
        pair.forEach(({ block, row }, at) => {
          const { rows, biases } = fingerprints[block]!;
          outs[at]!.fill(biases[group * rows + row]!);
        });
        for (let first = 0; first < fanIn; first += piece) {
          const end = Math.min(fanIn, first + piece);
          slide(a!, b!, { places, first, end }, padded, layout, one, other);
          yield 2 * (end - first) * length;
        }
        pair.forEach(({ block, row }, at) => {
          const { rows } = fingerprints[block]!;
          take(outs[at]!, layout, results[block]!.sums, (slice * rows + row) * positions);
          if (slice === slices - 1 && row === rows - 1) complete();
        });
      }
    }
  }
  return { energies, results, work: work() };
}

/** Channel `channel` of `x` with zeros around it, to `padded` from `at` on; its squares are added to `squares`. */
function pad(
  x: Float32Array,
  channel: number,
  { inputRows, inputWidth }: Layout,
  padded: Float64Array,
  at: number,
  squares: Float64Array,
): void {
  let from = channel * inputRows.length * inputWidth;
  for (const row of inputRows) {
    for (let to = row, end = row + inputWidth; to < end; to++) {
      const value = x[from++]!;
      padded[at + to] = value;
      squares[to]! += value * value;
    }
  }
}

/** The outputs among what a filter wrote. */
function take(
  wide: Float64Array,
  { outputRows, outputWidth, isOneStretch }: Layout,
  to: Float64Array,
  at: number,
): void {
  if (!isOneStretch) return void to.set(wide, at);
  for (const row of outputRows) for (let p = row, end = row + outputWidth; p < end; p++) to[at++] = wide[p]!;
}

/** The weights of a filter. */
interface Filter {
  readonly filters: Float32Array;
  readonly at: number;
}

/** Adds what weights `first` to `end` of two filters, which read at `places`, make of `padded` to `one` and `other`, four weights a pass. */
function slide(
  { filters: f, at }: Filter,
  { filters: g, at: bt }: Filter,
  { places, first, end }: { places: Int32Array; first: number; end: number },
  padded: Float64Array,
  { outputRows, outputWidth, step, isOneStretch, length }: Layout,
  one: Float64Array,
  other: Float64Array,
): void {
  for (let i = first; i < end; i += 4) {
    const j = i + 1 < end ? 1 : 0; // 0: there is no such weight
    const k = i + 2 < end ? 2 : 0;
    const l = i + 3 < end ? 3 : 0;
    const v0 = f[at + i]!;
    const v1 = j === 0 ? 0 : f[at + i + j]!;
    const v2 = k === 0 ? 0 : f[at + i + k]!;
    const v3 = l === 0 ? 0 : f[at + i + l]!;
    const w0 = g[bt + i]!;
    const w1 = j === 0 ? 0 : g[bt + i + j]!;
    const w2 = k === 0 ? 0 : g[bt + i + k]!;
    const w3 = l === 0 ? 0 : g[bt + i + l]!;
    const t0 = places[i]!;
    const t1 = places[i + j]! - t0;
    const t2 = places[i + k]! - t0;
    const t3 = places[i + l]! - t0;
    const stretches = isOneStretch ? 1 : outputRows.length;
    const count = isOneStretch ? length : outputWidth;
    for (let stretch = 0, p = 0; stretch < stretches; stretch++) {
      let q = (isOneStretch ? 0 : outputRows[stretch]!) + t0;
      for (const last = p + count; p < last; p++, q += step) {
        const x0 = padded[q]!;
        const x1 = padded[q + t1]!;
        const x2 = padded[q + t2]!;
        const x3 = padded[q + t3]!;
        one[p]! += v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3;
        other[p]! += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3;
      }
    }
  }
}

function makeLayout({ fanIn }: Reads, { kernel, strides, dilations, pads, input, output }: Window): Layout {
  const last = kernel.length - 1;
  // As large as the last window reaches: outputs need not reach the end of the input, nor its end the last window.
  const sizes = kernel.map((length, i) =>
    Math.max(pads[i]! + input[i]!, (output[i]! - 1) * strides[i]! + dilations[i]! * (length - 1) + 1),
  );
  const pitches = sizes.map((_, i) => product(sizes.slice(i + 1)));
  const offsets = (counts: readonly number[], place: (i: number, index: number) => number): number[] =>
    counts.reduce<number[]>(
      (before, count, i) =>
        before.flatMap(at => Array.from({ length: count }, (_, index) => at + place(i, index) * pitches[i]!)),
      [0],
    );
  const outputRows = offsets(output.slice(0, -1), (i, index) => index * strides[i]!);
  const outputWidth = output[last]!;
  const isOneStretch = strides.every(stride => stride === 1);
  const size = product(sizes);
  const taps = Int32Array.from(offsets(kernel, (i, index) => index * dilations[i]!));
  const places = new Int32Array(fanIn);
  for (let i = 0; i < fanIn; i++) places[i] = Math.floor(i / taps.length) * size + taps[i % taps.length]!;
  return {
    size,
    taps,
    places,
    inputRows: offsets(input.slice(0, -1), (i, index) => index + pads[i]!).map(at => at + pads[last]!),
    inputWidth: input[last]!,
    outputRows,
    outputWidth,
    step: strides[last]!,
    isOneStretch,
    length: isOneStretch ? outputRows.at(-1)! + outputWidth : outputRows.length * outputWidth,
  };
}

function product(values: readonly number[]): number {
  return values.reduce((a, b) => a * b, 1);
}
