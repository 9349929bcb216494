/** The cost of each linear layer from real shapes. */
import { elementCount, type Shape } from '@kofn/core';
import { findCodable } from './codable.js';
import type { OnnxModel } from '../model/graph.js';
import { macsOf } from './linear-layer.js';

export interface NodeProfile {
  readonly node: string;
  /** Multiply-accumulates of one run. */
  readonly macs: number;
  /** Bytes of weights and bias. */
  readonly weightBytes: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
}

/** Of every codable node whose input and output shapes are in `shapes` (by value name), in topological order. */
export function profile(model: OnnxModel, shapes: Readonly<Record<string, Shape>>): NodeProfile[] {
  return findCodable(model).flatMap(report => {
    if (!report.codable) return [];
    const input = shapes[report.dataInput];
    const output = shapes[report.output];
    if (input === undefined || output === undefined) return [];
    return {
      node: report.node,
      macs: macsOf(report, output),
      weightBytes: report.weightBytes,
      inputBytes: 4 * elementCount(input),
      outputBytes: 4 * elementCount(output),
    };
  });
}
