/**
 * Cuts a model at its coded nodes: what is left between them becomes segments, ONNX models that the master runs itself.
 * Coded nodes that read the same value (an Inception's branches, a transformer's Q, K and V) make one step: the value goes to
 * the workers once.
 *
 * A node's level is the largest number of coded nodes on a path from an input to it. Local nodes of one level that are
 * connected form one segment: nothing in a segment waits for a coded node that itself waits for the segment, and there are as
 * few segments as that allows. What no output needs is left out. A value that cannot be carried (a sequence) is made anew in each segment
 * that reads it.
 */
import { KofnError } from '@kofn/core';
import { findCodable, type Codable } from './codable.js';
import { neededNodes, type GraphNode, type ModelImage, type OnnxModel } from '../model/graph.js';
import { fileModel, subModel, type ValueTypes } from './sub-model.js';

export interface SegmentStep {
  readonly kind: 'segment';
  readonly name: string;
  readonly nodes: readonly string[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** The segment as a model; made anew each time, so that weights are in memory only while they are used. */
  image(): ModelImage;
}

/** Coded nodes that read one value, in one form (`Codable.inputForm`). */
export interface CodedStep {
  readonly kind: 'coded';
  readonly input: string;
  /** In the model's order. */
  readonly layers: readonly { readonly node: string; readonly output: string }[];
}

export interface Cut {
  /** In topological order: a step reads only the model's inputs and outputs of earlier steps. */
  readonly steps: readonly (SegmentStep | CodedStep)[];
}

/**
 * `codedNodes` are names of codable nodes (findCodable); `types` are needed for values between segments that are not
 * outputs of linear nodes. Throws NOT_FOUND for a name that is no node, UNSUPPORTED for one that cannot be coded.
 */
export function cutModel(model: OnnxModel, codedNodes: readonly string[], types: ValueTypes = {}): Cut {
  const coded = codableByName(model, codedNodes);
  if (model.undivided !== undefined) return { steps: [wholeStep(model)] };
  const graph = dataFlow(model, coded);
  const levels = levelsOf(graph);
  const depth = Math.max(0, ...levels.values());
  const parts: (Part | CodedStep)[] = [];
  for (let level = 0; level <= depth; level++) {
    const here = graph.nodes.filter(node => levels.get(node) === level);
    const local = here.filter(node => !coded.has(node.name));
    parts.push(...components(graph, local).map(nodes => partOf(model, nodes)));
    parts.push(...codedSteps(here.flatMap(node => coded.get(node.name) ?? [])));
  }
  const results = model.outputs.map(output => output.name);
  const read = new Set([...results, ...parts.flatMap(part => ('inputs' in part ? part.inputs : [part.input]))]);
  const steps: (SegmentStep | CodedStep)[] = [];
  for (const part of parts) {
    const step = 'inputs' in part ? segment(model, part, read, `segment ${steps.length}`, types) : part;
    if (step !== undefined) steps.push(step);
  }
  const constants = model.outputs.map(output => output.name).filter(name => model.constants.has(name));
  if (constants.length > 0) {
    const image = () => subModel(model, [], [], constants, types);
    steps.push({ kind: 'segment', name: 'constant outputs', nodes: [], inputs: [], outputs: constants, image });
  }
  return { steps };
}

function codableByName(model: OnnxModel, names: readonly string[]): Map<string, Codable> {
  const reports = new Map(findCodable(model).map(report => [report.node, report]));
  return new Map(
    names.map(name => {
      const report = reports.get(name);
      if (report?.codable === true) return [name, report];
      if (report !== undefined) throw new KofnError('UNSUPPORTED', `"${name}" cannot be coded: ${report.reason}`);
      if (!model.nodes.some(node => node.name === name)) {
        throw new KofnError('NOT_FOUND', `${model.origin} has no node "${name}"`);
      }
      throw new KofnError('UNSUPPORTED', `"${name}" cannot be coded: it is no Conv, Gemm or MatMul`);
    }),
  );
}

/** The file as one segment. */
function wholeStep(model: OnnxModel): SegmentStep {
  const inputs = model.inputs.map(({ name }) => name);
  const outputs = model.outputs.map(({ name }) => name).filter(name => !inputs.includes(name));
  return {
    kind: 'segment',
    name: 'segment 0',
    nodes: model.nodes.map(node => node.name),
    inputs,
    outputs,
    image: () => fileModel(model, outputs),
  };
}

/** What an output needs of the model. */
interface DataFlow {
  readonly model: OnnxModel;
  readonly coded: ReadonlyMap<string, Codable>;
  /** In the model's order. */
  readonly nodes: readonly GraphNode[];
  /** Values that a node needs when it runs: of a coded one its data alone, since the workers have its weights. */
  readonly reads: (node: GraphNode) => readonly string[];
}

function dataFlow(model: OnnxModel, coded: ReadonlyMap<string, Codable>): DataFlow {
  const reads = (node: GraphNode) => {
    const report = coded.get(node.name);
    return report === undefined ? node.reads : [report.dataInput];
  };
  return { model, coded, nodes: neededNodes(model, { reads }), reads };
}

function levelsOf({ model, coded, nodes, reads }: DataFlow): Map<GraphNode, number> {
  const levels = new Map<GraphNode, number>();
  for (const node of nodes) {
    const before = reads(node).map(value => {
      const producer = model.producers.get(value);
      return producer === undefined ? 0 : levels.get(producer)! + (coded.has(producer.name) ? 1 : 0);
    });
    levels.set(node, Math.max(0, ...before));
  }
  return levels;
}

/** One step for the nodes of one level that read the same value in the same form. */
function codedSteps(reports: readonly Codable[]): CodedStep[] {
  const steps = new Map<string, { kind: 'coded'; input: string; layers: { node: string; output: string }[] }>();
  for (const { node, output, dataInput, inputForm } of reports) {
    const key = `${inputForm} ${dataInput}`;
    const step = steps.get(key) ?? { kind: 'coded', input: dataInput, layers: [] };
    step.layers.push({ node, output });
    steps.set(key, step);
  }
  return [...steps.values()];
}

/** Sets of nodes that are connected by values they make and read, each in the model's order. */
function components({ model }: DataFlow, nodes: readonly GraphNode[]): GraphNode[][] {
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

/** Nodes of a segment to be. */
interface Part {
  /** Those that are this segment's alone. */
  readonly own: readonly GraphNode[];
  /** With those that make what cannot be carried to it; in the model's order. */
  readonly nodes: readonly GraphNode[];
  readonly inputs: readonly string[];
}

function partOf(model: OnnxModel, own: readonly GraphNode[]): Part {
  const all = new Set(own);
  // A set that grows is iterated to its end.
  for (const node of all) {
    for (const value of node.reads) {
      const maker = model.uncarried.has(value) ? model.producers.get(value) : undefined;
      if (maker !== undefined) all.add(maker);
    }
  }
  const nodes = all.size === own.length ? own : model.nodes.filter(node => all.has(node));
  const made = new Set(nodes.flatMap(node => node.outputs));
  const reads = new Set(nodes.flatMap(node => node.reads));
  return { own, nodes, inputs: [...reads].filter(value => !made.has(value) && !model.constants.has(value)) };
}

/** Undefined where nobody reads what the part makes: others make it anew. `read` are all values that are read between parts, or wanted. */
function segment(
  model: OnnxModel,
  { own, nodes, inputs }: Part,
  read: ReadonlySet<string>,
  name: string,
  types: ValueTypes,
): SegmentStep | undefined {
  const outputs = own.flatMap(node => node.outputs).filter(value => read.has(value));
  if (outputs.length === 0) return undefined;
  return {
    kind: 'segment',
    name,
    nodes: nodes.map(node => node.name),
    inputs,
    outputs,
    image: () => subModel(model, nodes, inputs, outputs, types),
  };
}
