/** Nodes in topological order: ONNX asks a file for it, and ONNX Runtime opens files without it. */
import type { NodeProto } from './proto.js';

/**
 * `nodes` so that each comes after those that make what it reads, in their own order where that allows it. Of nodes that wait for each
 * other the order stays as it was.
 */
export function topologically(
  nodes: readonly NodeProto[],
  readsOf: (node: NodeProto) => readonly string[],
): NodeProto[] {
  const makers = new Map(nodes.flatMap(node => (node.output ?? []).map(value => [value, node] as const)));
  makers.delete('');
  const ordered = new Set<NodeProto>();
  const entered = new Set<NodeProto>();
  for (const node of nodes) {
    const open = [node];
    for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
      const isNew = !entered.has(top);
      entered.add(top);
      const before = isNew ? readsOf(top).flatMap(value => makers.get(value) ?? []) : [];
      const missing = before.filter(maker => !entered.has(maker));
      if (missing.length > 0) open.push(...missing.reverse());
      else ordered.add(open.pop()!);
    }
  }
  return [...ordered];
}
