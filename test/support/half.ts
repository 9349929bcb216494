/** float16, which tensors hold as bits. */
import type { Tensor } from '@kofn/core';

/** A float32 tensor as float16, each element rounded to the nearest; they must be below 65520. */
export function toHalf({ shape, data }: Tensor): Tensor {
  return { dtype: 'float16', shape, data: Uint16Array.from(data as Float32Array, bitsOf) };
}

function bitsOf(value: number): number {
  const size = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  if (size === 0) return sign;
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  // A fraction that rounds up to 2048 carries into the exponent, as it should.
  return sign | (((exponent + 14) << 10) + Math.round(size * 2 ** (10 - exponent)));
}
