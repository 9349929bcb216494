/** Weights and inputs of benchmarks. */
import { elementCount, float32, seededRng, type Float32Tensor, type Shape } from '@kofn/core';

/** Draws tensors of standard normal values, the same ones for the same seed. */
export function randomTensors(seed: number): (shape: Shape) => Float32Tensor {
  const rng = seededRng(seed);
  return shape => {
    const values = new Float32Array(elementCount(shape));
    for (let i = 0; i < values.length; i++) values[i] = rng.normal();
    return float32(shape, values);
  };
}
