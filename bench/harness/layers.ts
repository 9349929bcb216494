/** The four layers that benchmarks measure: of AlexNet (fc6, fc7, conv4) and ResNet18 (layer1), batch 1. */
import type { Float32Tensor, Shape } from '@kofn/core';
import type { LayerSpec } from 'kofn';

export interface MeasuredLayer {
  readonly name: string;
  /** [outputs, inputs], or [output channels, input channels, ...kernel]. */
  readonly weights: Shape;
  readonly input: Shape;
}

export const LAYERS: readonly MeasuredLayer[] = [
  { name: 'FC 9216→4096', weights: [4096, 9216], input: [1, 9216] },
  { name: 'FC 4096→4096', weights: [4096, 4096], input: [1, 4096] },
  { name: 'conv 3x3 256→384, 13x13', weights: [384, 256, 3, 3], input: [1, 256, 13, 13] },
  { name: 'conv 3x3 64→64, 56x56', weights: [64, 64, 3, 3], input: [1, 64, 56, 56] },
];

/** The layer with these weights; a convolution's output has the size of its input. */
export function specOf(weights: Float32Tensor): LayerSpec {
  return weights.shape.length === 2 ? { type: 'dense', weights } : { type: 'conv', weights, pads: [1, 1, 1, 1] };
}
