/**
 * Values that no request carries from one part of a model to another: sequences, maps, optional values, and tensors of types that core has
 * none of. A part that reads one makes it itself (cut.ts). What is not found here shows when the model is opened, and runs as a whole.
 */
import type { GraphNode } from './graph.js';
import { dtypeOf, intAttribute, subgraphsOf, type GraphProto, type TensorProto, type ValueInfoProto } from './proto.js';
import { hasType } from './values.js';

/** Their outputs are sequences, maps or optional values. */
const MAKERS = new Set(
  'SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceMap SplitToSequence Optional ZipMap'.split(' '),
);
/** Their output is of the type of their first input. */
const PASSING = new Set('Identity Reshape Transpose Squeeze Unsqueeze Flatten'.split(' '));

/** `nodes` are those of `graph`, in topological order. */
export function uncarriedValues(
  graph: GraphProto,
  nodes: readonly GraphNode[],
  constants: ReadonlyMap<string, TensorProto>,
): Set<string> {
  const declared = [...(graph.valueInfo ?? []), ...(graph.output ?? [])].filter(isUncarried);
  const found = new Set(declared.map(({ name }) => name ?? ''));
  for (const { op, proto, outputs } of nodes) {
    const inner = subgraphsOf(proto)[0];
    if (inner !== undefined) {
      // A Loop's body has its condition first.
      const skipped = op === 'Loop' ? 1 : 0;
      const made = (inner.output ?? []).slice(skipped).map(isUncarried);
      (proto.output ?? []).forEach((value, at) => made[at] === true && found.add(value));
      continue;
    }
    const [first = '', , zeroPoint = ''] = proto.input ?? [];
    const element =
      op === 'Cast'
        ? intAttribute(proto, 'to', 0)
        : op === 'QuantizeLinear'
          ? intAttribute(proto, 'output_dtype', 0) || (constants.get(zeroPoint)?.dataType ?? 0)
          : 0;
    const isNone = element !== 0 && dtypeOf(element) === undefined;
    if (MAKERS.has(op) || isNone || (PASSING.has(op) && found.has(first)))
      for (const value of outputs) found.add(value);
  }
  return found;
}

function isUncarried(value: ValueInfoProto): boolean {
  return hasType(value) && dtypeOf(value.type?.tensorType?.elemType) === undefined;
}
