/** NumPy's format (NEP 1), version 1.0, as the shipped arrays have it: uint8 in C order. */

/** Throws an Error when it is anything else. */
export function uint8Array(file: ArrayBuffer): { readonly shape: readonly number[]; readonly data: Uint8Array } {
  const headerLength = new DataView(file).getUint16(8, true);
  const header = new TextDecoder('latin1').decode(new Uint8Array(file, 10, headerLength));
  const shape = /'shape': \(([\d, ]*)\)/.exec(header)?.[1];
  if (shape === undefined || !/'descr': '[|<]u1'/.test(header) || !/'fortran_order': False/.test(header)) {
    throw new Error(`an array of pixels should be uint8 in C order: ${header.trim()}`);
  }
  const sizes = shape.split(',').flatMap(size => (size.trim() === '' ? [] : [Number(size)]));
  return { shape: sizes, data: new Uint8Array(file, 10 + headerLength) };
}
