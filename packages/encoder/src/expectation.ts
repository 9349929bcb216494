/**
 * What the fingerprints of a layer's blocks expect of replies to one input: each of their filters on it, in float64. This is the
 * master's own part of the work, so that its loops are what verification costs.
 */
import type { Expectation, Fingerprint } from './fingerprint.js';

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

/**
 * For each of `fingerprints`, which are of one layer: dense [batch][fanIn], or conv [batch][channels][...input]. Read, never changed.
 */
export function expectations(
  fingerprints: readonly Fingerprint[],
  x: Float32Array,
  window: Window | undefined,
): Expectation[] {
  return window === undefined ? ofDense(fingerprints, x) : ofConv(fingerprints, x, window);
}

function ofDense(fingerprints: readonly Fingerprint[], x: Float32Array): Expectation[] {
  const { fanIn } = fingerprints[0]!;
  const batch = x.length / fanIn;
  const energies = new Float64Array(batch);
  const results = fingerprints.map(({ rows }) => ({ sums: new Float64Array(batch * rows), energies }));
  const values = new Float64Array(fanIn);
  for (let sample = 0; sample < batch; sample++) {
    values.set(x.subarray(sample * fanIn, (sample + 1) * fanIn));
    let energy = 0;
    for (let i = 0; i < fanIn; i++) energy += values[i]! * values[i]!;
    energies[sample] = energy;
    fingerprints.forEach(({ rows, filters, biases }, index) => {
      const { sums } = results[index]!;
      for (let row = 0; row < rows; row++) {
        sums[sample * rows + row] = biases[row]! + dot(filters, row * fanIn, values);
      }
    });
  }
  return results;
}

/** In four sums, so that no addition waits for the one before. */
function dot(filters: Float64Array, at: number, values: Float64Array): number {
  const { length } = values;
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < length; i += 4) {
    a += filters[at + i]! * values[i]!;
    b += filters[at + i + 1]! * values[i + 1]!;
    c += filters[at + i + 2]! * values[i + 2]!;
    d += filters[at + i + 3]! * values[i + 3]!;
  }
  for (; i < length; i++) a += filters[at + i]! * values[i]!;
  return a + b + c + d;
}

/** Where the elements of a padded channel are that a filter reads. */
interface Layout {
  /** Elements of a padded channel. */
  readonly size: number;
  /** Of each weight of a channel's kernel. */
  readonly taps: readonly number[];
  /** Stretches of outputs whose inputs lie `step` apart: the first one's input, where they go, and how many they are. */
  readonly stretches: readonly { readonly from: number; readonly to: number; readonly count: number }[];
  readonly step: number;
  /** Elements that the stretches write. */
  readonly length: number;
  /** Where each output is among them. */
  readonly places: Int32Array;
  /** Where the input's rows, of the last dimension, begin in a padded channel; and their length. */
  readonly rows: readonly number[];
  readonly rowLength: number;
}

function ofConv(fingerprints: readonly Fingerprint[], x: Float32Array, window: Window): Expectation[] {
  const { groups, fanIn } = fingerprints[0]!;
  const layout = layoutOf(window);
  const channels = fanIn / layout.taps.length;
  const batch = x.length / (groups * channels * layout.rows.length * layout.rowLength);
  const positions = layout.places.length;
  const energies = new Float64Array(batch * groups * positions);
  const results = fingerprints.map(({ rows }) => ({
    sums: new Float64Array(batch * groups * rows * positions),
    energies,
  }));
  const padded = new Float64Array(channels * layout.size);
  const squares = new Float64Array(layout.size);
  const wide = new Float64Array(layout.length);
  const ones = new Float64Array(layout.taps.length).fill(1);
  const taps = Int32Array.from(layout.taps);
  const weights = Int32Array.from({ length: fanIn }, (_, i) => {
    return Math.floor(i / taps.length) * layout.size + taps[i % taps.length]!;
  });
  const take = (to: Float64Array, at: number) => {
    for (let p = 0; p < positions; p++) to[at + p] = wide[layout.places[p]!]!;
  };
  for (let slice = 0; slice < batch * groups; slice++) {
    const group = slice % groups;
    pad(x, slice * channels, channels, layout, padded);
    squares.fill(0);
    for (let i = 0; i < padded.length; i += layout.size) {
      for (let p = 0; p < layout.size; p++) squares[p]! += padded[i + p]! * padded[i + p]!;
    }
    wide.fill(0);
    slide(ones, 0, taps, squares, layout, wide);
    take(energies, slice * positions);
    fingerprints.forEach(({ rows, filters, biases }, index) => {
      for (let row = 0; row < rows; row++) {
        wide.fill(biases[group * rows + row]!);
        slide(filters, (group * rows + row) * fanIn, weights, padded, layout, wide);
        take(results[index]!.sums, (slice * rows + row) * positions);
      }
    });
  }
  return results;
}

function pad(x: Float32Array, channel: number, count: number, layout: Layout, padded: Float64Array): void {
  const { size, rows, rowLength } = layout;
  let from = channel * rows.length * rowLength;
  for (let to = 0; to < count * size; to += size) {
    for (const row of rows) {
      for (let i = 0; i < rowLength; i++) padded[to + row + i] = x[from++]!;
    }
  }
}

/** Adds the filter at `at`, whose weights read at `places`, to `out`, four weights a pass. */
function slide(
  filters: Float64Array,
  at: number,
  places: Int32Array,
  padded: Float64Array,
  { stretches, step }: Layout,
  out: Float64Array,
): void {
  const last = places.length - 1;
  for (let i = 0; i <= last; i += 4) {
    const w0 = filters[at + i]!;
    const w1 = i + 1 > last ? 0 : filters[at + i + 1]!;
    const w2 = i + 2 > last ? 0 : filters[at + i + 2]!;
    const w3 = i + 3 > last ? 0 : filters[at + i + 3]!;
    const t0 = places[i]!;
    const t1 = places[Math.min(i + 1, last)]! - t0;
    const t2 = places[Math.min(i + 2, last)]! - t0;
    const t3 = places[Math.min(i + 3, last)]! - t0;
    for (const { from, to, count } of stretches) {
      for (let p = to, q = from + t0, end = to + count; p < end; p++, q += step) {
        out[p]! += w0 * padded[q]! + w1 * padded[q + t1]! + w2 * padded[q + t2]! + w3 * padded[q + t3]!;
      }
    }
  }
}

function layoutOf({ kernel, strides, dilations, pads, input, output }: Window): Layout {
  const dims = kernel.length;
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
  const taps = offsets(kernel, (i, index) => index * dilations[i]!);
  const rows = offsets(input.slice(0, -1), (i, index) => index + pads[i]!).map(at => at + pads[dims - 1]!);
  const places = offsets(output, (i, index) => index * strides[i]!);
  const shared = { size: product(sizes), taps, rows, rowLength: input[dims - 1]! };
  if (strides.every(stride => stride === 1)) {
    // One long stretch, over the ends of rows: what is computed there is not looked at.
    const length = places[places.length - 1]! + 1;
    return {
      ...shared,
      stretches: [{ from: 0, to: 0, count: length }],
      step: 1,
      length,
      places: Int32Array.from(places),
    };
  }
  const width = output[dims - 1]!;
  const stretches = places.flatMap((from, to) => (to % width === 0 ? [{ from, to, count: width }] : []));
  const inOrder = Int32Array.from(places, (_, index) => index);
  return { ...shared, stretches, step: strides[dims - 1]!, length: places.length, places: inOrder };
}

function product(values: readonly number[]): number {
  return values.reduce((a, b) => a * b, 1);
}
