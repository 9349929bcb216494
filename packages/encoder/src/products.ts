/**
 * Scalar products of float32 vectors in float64, by WebAssembly with SIMD: six times as fast as a loop of ours (bench/verify.ts says what
 * that is of a request), and on the caller's own thread. `products.wat` is what the bytes say; a test holds one against the other.
 *
 * Invariants
 * 1. Nothing of one call is there for the next: values are copied in, and their memory grows to what the largest call needs.
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

/**
 * Of `rows` vectors that stand one after the other in `matrix` from row `first` on, each as long as `vector`, the scalar product with it: to
 * `out` from `at` on. Throws WebAssembly.CompileError on a processor without SIMD (x86-64 before 2008, ARMv7 without NEON).
 */
export function products(
  matrix: Float32Array,
  first: number,
  rows: number,
  vector: Float32Array,
  out: Float64Array,
  at: number,
): void {
  const { length } = vector;
  const width = Math.ceil(length / LANES) * LANES;
  const { memory, products: run } = instance();
  const outAt = 4 * width * (1 + ROWS);
  const bytes = outAt + 8 * ROWS;
  if (bytes > memory.buffer.byteLength) memory.grow(Math.ceil((bytes - memory.buffer.byteLength) / PAGE_BYTES));
  const values = new Float32Array(memory.buffer, 0, width * (1 + ROWS));
  const results = new Float64Array(memory.buffer, outAt, ROWS);
  values.set(vector);
  if (length < width) for (let row = 0; row <= ROWS; row++) values.fill(0, row * width + length, (row + 1) * width);
  for (let row = 0; row < rows; row += ROWS) {
    const count = Math.min(ROWS, rows - row);
    const start = (first + row) * length;
    if (length === width) values.set(matrix.subarray(start, start + count * length), width);
    else {
      for (let each = 0; each < count; each++) {
        const from = start + each * length;
        values.set(matrix.subarray(from, from + length), (1 + each) * width);
      }
    }
    run(4 * width, 4 * width, 0, width, outAt); // of rows that are not there: whatever it is, nobody looks
    for (let each = 0; each < count; each++) out[at + row + each] = results[each]!;
  }
}

function instance(): Exports {
  if (exports === undefined) {
    const { Module, Instance } = (globalThis as unknown as { WebAssembly: WebAssemblyGlobal }).WebAssembly;
    const module = new Module(Uint8Array.from(atob(BYTES), char => char.charCodeAt(0)));
    exports = new Instance(module).exports as Exports;
  }
  return exports;
}
