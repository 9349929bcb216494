/** What a model takes and gives: tensors that kofn carries, and what it does not, in words. */
import { KofnError } from '@kofn/core';
import type { OtherValue, ValueInfo } from './graph.js';
import { dtypeOf, toNumber, type GraphProto, type TensorProto, type TypeProto, type ValueInfoProto } from './proto.js';

export interface Ends {
  readonly inputs: readonly ValueInfo[];
  readonly overridable: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly otherOutputs: readonly OtherValue[];
}

/**
 * Inputs and outputs of `graph`. Throws UNSUPPORTED when an input, or every output, is nothing that kofn carries: the message names it and
 * what to do.
 */
export function endsOf(graph: GraphProto, constants: ReadonlyMap<string, TensorProto>, origin: string): Ends {
  const given = graph.input ?? [];
  const inputs = given.filter(({ name }) => !constants.has(name ?? ''));
  const refused = inputs.find(input => dtypeOfValue(input) === undefined);
  if (refused !== undefined) {
    const advice = 'export the model with tensors in its place, or without the nodes that read it';
    const message = `${origin}: its input "${refused.name}" is ${wordsOf(refused.type)}, which kofn cannot send; ${advice}`;
    throw new KofnError('UNSUPPORTED', message);
  }
  const outputs = (graph.output ?? []).map(output => typed(output, graph, constants));
  const isCarried = (output: ValueInfoProto) => dtypeOfValue(output) !== undefined || !hasType(output);
  const others = outputs.filter(output => !isCarried(output));
  const otherOutputs = others.map(({ name, type }) => ({ name: name ?? '', kind: wordsOf(type) }));
  if (otherOutputs.length === outputs.length) {
    const what = otherOutputs.map(({ name, kind }) => `"${name}" is ${kind}`).join(', ');
    const message = `${origin} has no output that kofn can serve: ${what}; ${withoutOthers(otherOutputs)}`;
    throw new KofnError('UNSUPPORTED', message);
  }
  return {
    inputs: inputs.map(valueInfo),
    // Of a type that kofn does not carry they keep the model's own values.
    overridable: given
      .filter(input => constants.has(input.name ?? '') && dtypeOfValue(input) !== undefined)
      .map(valueInfo),
    outputs: outputs.filter(isCarried).map(valueInfo),
    otherOutputs,
  };
}

/** How to export a model without `others`, outputs that are no tensors that kofn carries. */
export function withoutOthers(others: readonly OtherValue[]): string {
  const zipMap = others.some(({ kind }) => kind.includes('map'))
    ? ' (skl2onnx: to_onnx(model, X, options={"zipmap": False}) makes probabilities a tensor)'
    : '';
  return `export the model with ${others.length === 1 ? 'a tensor in its place' : 'tensors in their place'}${zipMap}`;
}

/** A type in words: "a sequence of maps", "a uint4 tensor". */
function wordsOf(type: TypeProto | null | undefined): string {
  const plural = (words: string) => words.replace(/^an? /, '').replace(/(tensor|map|sequence|value)\b/, '$1s');
  if (type?.sequenceType) return `a sequence of ${plural(wordsOf(type.sequenceType.elemType))}`;
  if (type?.mapType) return 'a map';
  if (type?.optionalType) return 'an optional value';
  if (type?.sparseTensorType) return 'a sparse tensor';
  if (!type?.tensorType) return 'a value of no type';
  const element = type.tensorType.elemType ?? 0;
  const name = dtypeOf(element) ?? OTHER_ELEMENTS[element] ?? `tensor of element type ${element}`;
  return `${/^[aeiou]/.test(name) && !name.startsWith('u') ? 'an' : 'a'} ${name}${name.startsWith('tensor') ? '' : ' tensor'}`;
}

/** Element types of ONNX that core has no tensors of. */
const OTHER_ELEMENTS: Readonly<Record<number, string>> = {
  14: 'complex64',
  15: 'complex128',
  17: 'float8e4m3fn',
  18: 'float8e4m3fnuz',
  19: 'float8e5m2',
  20: 'float8e5m2fnuz',
  21: 'uint4',
  22: 'int4',
  23: 'float4e2m1',
};

/** `output` with the type that the file gives elsewhere: ONNX Runtime takes outputs without one. */
function typed(output: ValueInfoProto, graph: GraphProto, constants: ReadonlyMap<string, TensorProto>): ValueInfoProto {
  if (hasType(output)) return output;
  const same = [...(graph.valueInfo ?? []), ...(graph.input ?? [])].find(({ name }) => name === output.name);
  const constant = constants.get(output.name ?? '');
  const type = same?.type ?? (constant && { tensorType: { elemType: constant.dataType ?? 0 } });
  return type ? { name: output.name ?? '', type } : output;
}

/** Whether the file says what the value is. */
export function hasType({ type }: ValueInfoProto): boolean {
  if (!type) return false;
  if (type.tensorType) return (type.tensorType.elemType ?? 0) !== 0;
  return Boolean(type.sequenceType ?? type.mapType ?? type.optionalType ?? type.sparseTensorType);
}

function dtypeOfValue({ type }: ValueInfoProto) {
  return dtypeOf(type?.tensorType?.elemType);
}

function valueInfo(value: ValueInfoProto): ValueInfo {
  const shape = (value.type?.tensorType?.shape?.dim ?? []).map(dim => {
    // A size of 0 is one; protobufjs gives it for a size that is not there, too.
    const size = Object.hasOwn(dim, 'dimValue') && dim.dimValue !== null ? toNumber(dim.dimValue) : -1;
    return size >= 0 ? size : (dim.dimParam ?? '');
  });
  return { name: value.name ?? '', dtype: dtypeOfValue(value) ?? 'float32', shape };
}
