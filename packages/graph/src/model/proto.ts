/** The ONNX protobuf as this package uses it (onnx.proto3, IR 3 to 10). */
import type { DType } from '@kofn/core';
import onnxProto from 'onnx-proto';
import type { onnx as Onnx } from 'onnx-proto';

declare global {
  /** What onnx-proto's types call protobufjs' 64-bit integers, without importing it. */
  interface Long {
    toNumber(): number;
    toString(): string;
  }
}

export const { onnx } = onnxProto;

export type ModelProto = Onnx.IModelProto;
export type GraphProto = Onnx.IGraphProto;
export type NodeProto = Onnx.INodeProto;
export type TensorProto = Onnx.ITensorProto;
export type ValueInfoProto = Onnx.IValueInfoProto;
export type AttributeProto = Onnx.IAttributeProto;
export type TypeProto = Onnx.ITypeProto;

/** TensorProto.DataType by number; null where a tensor cannot hold it or kofn does not carry it. */
const DTYPES: readonly (DType | null)[] = [
  null,
  'float32',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'string',
  'bool',
  'float16',
  'float64',
  'uint32',
  'uint64',
  null,
  null,
  'bfloat16',
];

export function dtypeOf(elementType: number | null | undefined): DType | undefined {
  return DTYPES[elementType ?? 0] ?? undefined;
}

export function elementTypeOf(dtype: DType): number {
  return DTYPES.indexOf(dtype);
}

/** protobufjs gives 64-bit integers as Long objects. */
export function toNumber(value: number | Long | null | undefined): number {
  return typeof value === 'object' && value !== null ? value.toNumber() : Number(value ?? 0);
}

export function toBigInt(value: number | Long): bigint {
  return BigInt(typeof value === 'number' ? value : value.toString());
}

export function shapeOf(constant: TensorProto): number[] {
  return (constant.dims ?? []).map(toNumber);
}

/** Whether a node's operator is one of ONNX itself. */
export function isStandard(node: NodeProto): boolean {
  return ['', 'ai.onnx'].includes(node.domain ?? '');
}

export function attributeOf(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute?.find(attribute => attribute.name === name) ?? undefined;
}

/** The graphs inside a node (of If, Loop, Scan). */
export function subgraphsOf(node: NodeProto): GraphProto[] {
  return (node.attribute ?? []).flatMap(({ g, graphs }) => [...(g ? [g] : []), ...(graphs ?? [])]);
}

export function intAttribute(node: NodeProto, name: string, fallback: number): number {
  const attribute = attributeOf(node, name);
  return attribute === undefined ? fallback : toNumber(attribute.i);
}

export function floatAttribute(node: NodeProto, name: string, fallback: number): number {
  return attributeOf(node, name)?.f ?? fallback;
}

export function intsAttribute(node: NodeProto, name: string): number[] | undefined {
  return attributeOf(node, name)?.ints?.map(toNumber);
}

export function stringAttribute(node: NodeProto, name: string, fallback: string): string {
  const bytes = attributeOf(node, name)?.s;
  return bytes === undefined || bytes === null ? fallback : Buffer.from(bytes).toString('utf8');
}

/** A tensor type with dtype and, when given, sizes (numbers) or open dimensions (names). */
export function valueInfoProto(name: string, dtype: DType, shape?: readonly (number | string)[]): ValueInfoProto {
  const dim = shape?.map(size => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  return {
    name,
    type: { tensorType: { elemType: elementTypeOf(dtype), ...(dim === undefined ? {} : { shape: { dim } }) } },
  };
}
