/**
 * Cuts a model at its coded nodes: what is left between them becomes segments, ONNX models that the master runs itself.
 *
 * A node's level is the largest number of coded nodes on a path from an input to it. Local nodes of one level that are
 * connected form one segment: nothing in a segment waits for a coded node that itself waits for the segment, and there are as
 * few segments as that allows. What no output needs is left out.
 */
import { KofnError } from '@kofn/core';
import type { GraphNode, ModelFiles, OnnxModel } from './graph.js';
import { subModel, type ValueTypes } from './sub-model.js';

export interface SegmentStep {
  readonly kind: 'segment';
  readonly name: string;
  readonly nodes: readonly string[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** The segment as a model; made anew each time, so that weights are in memory only while they are used. */
  files(): ModelFiles;
}

export interface CodedStep {
  readonly kind: 'coded';
  readonly node: string;
  readonly input: string;
  readonly output: string;
}

export interface Cut {
  /** In topological order: a step reads only the model's inputs and outputs of earlier steps. */
  readonly steps: readonly (SegmentStep | CodedStep)[];
}

/**
 * `codedNodes` are names of linear nodes (findCodable); `types` are needed for values between segments that are not
 * outputs of linear nodes. Throws NOT_FOUND for a name that is no node.
 */
export function cutModel(model: OnnxModel, codedNodes: readonly string[], types: ValueTypes = {}): Cut {
  const coded = new Set(codedNodes);
  for (const name of coded) {
    if (!model.nodes.some(node => node.name === name)) {
      throw new KofnError('NOT_FOUND', `${model.origin} has no node "${name}"`);
    }
  }
  const needed = neededNodes(model);
  const levels = levelsOf(needed, model.producers, coded);
  const depth = Math.max(0, ...levels.values());
  const steps: (SegmentStep | CodedStep)[] = [];
  for (let level = 0; level <= depth; level++) {
    const here = needed.filter(node => levels.get(node) === level);
    for (const nodes of components(
      model,
      here.filter(node => !coded.has(node.name)),
    )) {
      steps.push(segment(model, nodes, `segment ${steps.length}`, types));
    }
    for (const node of here.filter(candidate => coded.has(candidate.name))) {
      steps.push({ kind: 'coded', node: node.name, input: node.proto.input![0]!, output: node.outputs[0]! });
    }
  }
  const constants = model.outputs.map(output => output.name).filter(name => model.constants.has(name));
  if (constants.length > 0) {
    const files = () => subModel(model, [], [], constants, types);
    steps.push({ kind: 'segment', name: 'constant outputs', nodes: [], inputs: [], outputs: constants, files });
  }
  return { steps };
}

/** The nodes that an output depends on, in the model's order. */
function neededNodes(model: OnnxModel): GraphNode[] {
  const needed = new Set<GraphNode>();
  const values = model.outputs.map(output => output.name);
  for (let value = values.pop(); value !== undefined; value = values.pop()) {
    const producer = model.producers.get(value);
    if (producer === undefined || needed.has(producer)) continue;
    needed.add(producer);
    values.push(...producer.reads);
  }
  return model.nodes.filter(node => needed.has(node));
}

function levelsOf(
  nodes: readonly GraphNode[],
  producers: OnnxModel['producers'],
  coded: ReadonlySet<string>,
): Map<GraphNode, number> {
  const levels = new Map<GraphNode, number>();
  for (const node of nodes) {
    const before = node.reads.map(value => {
      const producer = producers.get(value);
      return producer === undefined ? 0 : levels.get(producer)! + (coded.has(producer.name) ? 1 : 0);
    });
    levels.set(node, Math.max(0, ...before));
  }
  return levels;
}

/** Sets of nodes that are connected by values they make and read, each in the model's order. */
function components(model: OnnxModel, nodes: readonly GraphNode[]): GraphNode[][] {
  const parent = new Map(nodes.map(node => [node, node]));
  const root = (node: GraphNode): GraphNode => {
    let top = node;
    while (parent.get(top) !== top) top = parent.get(top)!;
    parent.set(node, top);
    return top;
  };
  for (const node of nodes) {
    for (const value of node.reads) {
      const producer = model.producers.get(value);
      if (producer !== undefined && parent.has(producer)) parent.set(root(producer), root(node));
    }
  }
  const sets = new Map<GraphNode, GraphNode[]>();
  for (const node of nodes) {
    const top = root(node);
    const set = sets.get(top);
    if (set === undefined) sets.set(top, [node]);
    else set.push(node);
  }
  return [...sets.values()];
}

function segment(model: OnnxModel, nodes: readonly GraphNode[], name: string, types: ValueTypes): SegmentStep {
  const inside = new Set(nodes);
  const made = new Set(nodes.flatMap(node => node.outputs));
  const reads = new Set(nodes.flatMap(node => node.reads));
  const results = new Set(model.outputs.map(output => output.name));
  const inputs = [...reads].filter(value => !made.has(value) && !model.constants.has(value));
  const outputs = [...made].filter(
    value => results.has(value) || (model.consumers.get(value) ?? []).some(reader => !inside.has(reader)),
  );
  return {
    kind: 'segment',
    name,
    nodes: nodes.map(node => node.name),
    inputs,
    outputs,
    files: () => subModel(model, nodes, inputs, outputs, types),
  };
}
