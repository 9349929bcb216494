/**
 * Names of linear nodes across ONNX Runtime's optimisation, which renames what it fuses ("mm" and "add" become
 * "mm/MatMulAddFusion"): a user's plan speaks of the nodes of the user's file.
 */
import type { GraphNode, OnnxModel } from './graph.js';
import { isStandard, type GraphProto, type NodeProto } from './proto.js';

/** What ONNX Runtime puts before the names of values between the casts that it inserts. */
const CAST_PREFIX = /^InsertedPrecisionFreeCast_/;

export function isLinear({ opType, domain }: Pick<NodeProto, 'opType' | 'domain'>): boolean {
  return ['Conv', 'Gemm', 'MatMul'].includes(opType ?? '') && isStandard({ domain: domain ?? '' });
}

/** Gives each linear node of `graph` the name of the linear node of `original` that it came from, where that is known. */
export function restoreNames(graph: GraphProto, original: OnnxModel): void {
  const originals = new Map(original.nodes.filter(node => isLinear(node.proto)).map(node => [node.name, node]));
  const free = new Set(originals.keys());
  const linear = (graph.node ?? []).filter(isLinear);
  for (const node of linear) free.delete(node.name ?? '');
  for (const node of linear) {
    if (originals.has(node.name ?? '')) continue;
    const candidates = [
      readerOf(originals.values(), node),
      producerOf(original, (node.output?.[0] ?? '').replace(CAST_PREFIX, '')),
    ];
    const origin = candidates.find(candidate => candidate !== undefined && free.has(candidate.name));
    if (origin === undefined) continue;
    free.delete(origin.name);
    node.name = origin.name;
  }
}

/** The linear node that multiplies the same two values: a MatMul that an addition was fused into. */
function readerOf(originals: Iterable<GraphNode>, node: NodeProto): GraphNode | undefined {
  const operands = ({ input }: NodeProto) => JSON.stringify(input?.slice(0, 2));
  return [...originals].find(({ proto }) => operands(proto) === operands(node));
}

/** The linear node whose output, through nodes of one computed input (a bias, a BatchNormalization), becomes `value`. */
function producerOf(model: OnnxModel, value: string): GraphNode | undefined {
  let node = model.producers.get(value);
  while (node !== undefined && !isLinear(node.proto)) {
    const computed: string[] = node.reads.filter(name => !model.constants.has(name));
    if (computed.length !== 1) return undefined;
    node = model.producers.get(computed[0]!);
  }
  return node;
}
