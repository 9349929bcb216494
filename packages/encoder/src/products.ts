/**
 * Scalar products of float32 vectors in float64, by WebAssembly with SIMD: six times as fast as a loop of ours (bench/verify.ts says what
 * that is of a request), and on the caller's own thread. `products.wat` is what the bytes say; a test holds one against the other.
 *
 * Invariants
 * 1. A matrix is copied to WebAssembly's memory when it is first used, for a copy costs as much as its products. It stays there until
 *    there is no room for another, which then has the memory for itself: nobody has to give anything back.
 * 2. That memory is KEPT_BYTES, or what the largest matrix takes.
 */
export const BYTES = [
  'AGFzbQEAAAABCQFgBX9/f39/AAMCAQAFAwEAAQcVAgZtZW1vcnkCAAhwcm9kdWN0cwAACusCAegCAgR/CnsgACABaiEFIAUgAWohBiAGIAFqIQ',
  'cgACADQQJ0aiEIA0AgAv1dAwD9XyEJIAL9XQMI/V8hCiALIAkgAP1dAwD9X/3yAf3wASELIA8gCiAA/V0DCP1f/fIB/fABIQ8gDCAJIAX9XQMA',
  '/V/98gH98AEhDCAQIAogBf1dAwj9X/3yAf3wASEQIA0gCSAG/V0DAP1f/fIB/fABIQ0gESAKIAb9XQMI/V/98gH98AEhESAOIAkgB/1dAwD9X/',
  '3yAf3wASEOIBIgCiAH/V0DCP1f/fIB/fABIRIgAkEQaiECIAVBEGohBSAGQRBqIQYgB0EQaiEHIABBEGoiACAISQ0ACyALIA/98AEhCyAMIBD9',
  '8AEhDCANIBH98AEhDSAOIBL98AEhDiAEIAv9IQAgC/0hAaA5AwAgBCAM/SEAIAz9IQGgOQMIIAQgDf0hACAN/SEBoDkDECAEIA79IQAgDv0hAa',
  'A5AxgL',
].join('');

/** Rows of a pass, and values by which a vector grows. */
const ROWS = 4;
const LANES = 4;
const PAGE_BYTES = 2 ** 16;
const KEPT_BYTES = 2 ** 26;
/** Results stand first, then the vector, then matrices. */
const VECTOR_AT = 8 * ROWS;

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer; readonly grow: (pages: number) => number };
  readonly products: (row: number, stride: number, vector: number, count: number, out: number) => void;
}

/** What of WebAssembly is needed here: neither ECMAScript's types nor Node's have it. */
interface WebAssemblyGlobal {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: object };
}

let exports: Exports | undefined;
/** Values for which there is room in a vector. */
let vectorWidth = 2 ** 14;
/** Where the matrices are that are there, and where the next begins. */
let kept = new WeakMap<Float32Array, number>();
let end = VECTOR_AT + 4 * vectorWidth;

/**
 * Of rows `first` to `first + rows` of `matrix`, each as long as `vector`, the scalar products with it: to `out` from `at` on. A matrix
 * never changes. Throws WebAssembly.CompileError on a processor without SIMD (x86-64 before 2008, ARMv7 without NEON).
 */
export function products(
  matrix: Float32Array,
  first: number,
  rows: number,
  vector: Float32Array,
  out: Float64Array,
  at: number,
): void {
  const width = widthOf(vector);
  const { products: run } = instance();
  const start = keep(matrix, vector.length) + 4 * width * first;
  setVector(vector);
  const results = new Float64Array(instance().memory.buffer, 0, ROWS);
  for (let row = 0; row < rows; row += ROWS) {
    run(start + 4 * width * row, 4 * width, VECTOR_AT, width, 0); // of rows that are not there: whatever it is, nobody looks
    for (let each = 0; each < Math.min(ROWS, rows - row); each++) out[at + row + each] = results[each]!;
  }
}

/** The scalar product of `vector` with itself. Throws as `products`. */
export function energy(vector: Float32Array): number {
  makeRoom(widthOf(vector));
  setVector(vector);
  const { memory, products: run } = instance();
  run(VECTOR_AT, 0, VECTOR_AT, widthOf(vector), 0);
  return new Float64Array(memory.buffer, 0, 1)[0]!;
}

function widthOf({ length }: Float32Array): number {
  return Math.ceil(length / LANES) * LANES;
}

function setVector(vector: Float32Array): void {
  const values = new Float32Array(instance().memory.buffer, VECTOR_AT, widthOf(vector));
  values.set(vector);
  values.fill(0, vector.length);
}

/** Where `matrix` begins, each of its rows filled up with zeros. */
function keep(matrix: Float32Array, length: number): number {
  const width = Math.ceil(length / LANES) * LANES;
  makeRoom(width);
  let start = kept.get(matrix);
  if (start !== undefined) return start;
  const rows = matrix.length / length;
  if (end + 4 * rows * width > KEPT_BYTES) clear();
  start = end;
  end += 4 * rows * width;
  const { memory } = instance();
  const missing = end + 4 * ROWS * width - memory.buffer.byteLength; // a pass may read beyond the last row
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  const values = new Float32Array(memory.buffer, start, rows * width);
  for (let row = 0; row < rows; row++) {
    values.set(matrix.subarray(row * length, (row + 1) * length), row * width);
    values.fill(0, row * width + length, (row + 1) * width);
  }
  kept.set(matrix, start);
  return start;
}

/** For a vector of `width` values. */
function makeRoom(width: number): void {
  if (width > vectorWidth) {
    vectorWidth = width;
    clear();
  }
  const { memory } = instance();
  const missing = end - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
}

function clear(): void {
  kept = new WeakMap();
  end = VECTOR_AT + 4 * vectorWidth;
}

function instance(): Exports {
  if (exports === undefined) {
    const { Module, Instance } = (globalThis as unknown as { WebAssembly: WebAssemblyGlobal }).WebAssembly;
    const module = new Module(Uint8Array.from(atob(BYTES), char => char.charCodeAt(0)));
    exports = new Instance(module).exports as Exports;
  }
  return exports;
}
