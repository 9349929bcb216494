/** Values that core has no tensors of, between nodes and as outputs; and files that say other things than exporters do. */
import { tensor } from '@kofn/core';
import {
  draw,
  scalar,
  truth,
  int64,
  float,
  constant,
  op,
  following,
  W,
  given,
  FED,
  linear,
  type Row,
} from './parts.js';

const UINT4 = 21;
const FLOAT8 = 17;
export const CARRYING: Row[] = [
  [
    'a sequence that a coded layer is between',
    {
      ...following([
        op('SplitToSequence', ['x'], ['s'], { axis: 1 }),
        op('SequenceInsert', ['s', 'h'], ['longer']),
        op('ConcatFromSequence', ['longer'], ['all'], { axis: 1 }),
        { op: 'MatMul', name: 'fc2', inputs: ['all', 'w2'], outputs: ['y'] },
      ]),
      initializers: { w: W, w2: draw(24, 8) },
    },
    { coded: ['fc', 'fc2'] },
  ],
  [
    'a sequence that a Loop grows',
    following([
      op('SequenceEmpty', [], ['none'], { dtype: 1 }),
      constant('n', tensor('int64', [], BigInt64Array.of(3n))),
      constant('go', truth(true)),
      op('Loop', ['n', 'go', 'none'], ['s'], {
        body: {
          graph: {
            nodes: [op('SequenceInsert', ['before', 'h'], ['behind']), op('Identity', ['going'], ['goes'])],
            inputs: {
              i: { dtype: 'int64', shape: [] },
              going: { dtype: 'bool', shape: [] },
              before: { elementType: 1, kind: 'sequence' },
            },
            outputs: { goes: { dtype: 'bool' }, behind: { elementType: 1, kind: 'sequence' } },
          },
        },
      }),
      op('ConcatFromSequence', ['s'], ['y'], { axis: 1 }),
    ]),
  ],
  [
    'an optional value that a coded layer is between',
    {
      ...following([
        op('Optional', ['x'], ['maybe']),
        op('OptionalGetElement', ['maybe'], ['same']),
        op('Concat', ['h', 'same'], ['y'], { axis: 1 }),
      ]),
      opset: 17,
    },
  ],
  [
    'a sequence of which the file does not say that it is one',
    {
      ...following(
        [
          op('If', ['c'], ['s'], {
            then_branch: {
              graph: { nodes: [op('SplitToSequence', ['x'], ['p'], { axis: 1 })], outputs: { p: { untyped: true } } },
            },
            else_branch: {
              graph: { nodes: [op('SequenceConstruct', ['x'], ['p'])], outputs: { p: { untyped: true } } },
            },
          }),
          op('SequenceInsert', ['s', 'h'], ['longer']),
          op('ConcatFromSequence', ['longer'], ['y'], { axis: 1 }),
        ],
        { inputs: given },
      ),
    },
    {
      feeds: FED,
      coded: [],
      note: /^ONNX Runtime opens the model as a whole only: the value "s" is a sequence or map/,
    },
  ],
  [
    '4-bit integers that a coded layer is between',
    {
      ...following([
        op('QuantizeLinear', ['x', 'scale', 'zero'], ['q']),
        op('ReduceMax', ['h'], ['most'], { keepdims: 0 }),
        op('DequantizeLinear', ['q', 'most', 'zero'], ['d']),
        op('Concat', ['h', 'd'], ['y'], { axis: 1 }),
      ]),
      initializers: { w: W, scale: scalar(0.5) },
      protos: [{ name: 'zero', dims: [], dataType: UINT4, int32Data: [3] }],
      opset: 21,
    },
  ],
  [
    'more than 1 KiB of 4-bit integers',
    {
      ...following([
        op('DequantizeLinear', ['q', 'scale'], ['d']),
        op('Gather', ['d', 'row'], ['some']),
        op('ReduceSum', ['some'], ['sum'], { keepdims: 0 }),
        op('Add', ['h', 'sum'], ['y']),
      ]),
      inputs: { x: { dtype: 'float32', shape: ['N', 16] }, row: { dtype: 'int64', shape: [1] } },
      initializers: { w: W, scale: scalar(0.25) },
      protos: [{ name: 'q', dims: [64, 64], dataType: UINT4, rawData: Uint8Array.from({ length: 2048 }, (_, i) => i) }],
      opset: 21,
    },
    { feeds: { row: int64(5) } },
  ],
  [
    'more than 1 KiB of 8-bit floats',
    {
      ...following([
        op('Cast', ['q'], ['d'], { to: 1 }),
        op('Gather', ['d', 'row'], ['some']),
        op('ReduceSum', ['some'], ['sum'], { keepdims: 0 }),
        op('Add', ['h', 'sum'], ['y']),
      ]),
      inputs: { x: { dtype: 'float32', shape: ['N', 16] }, row: { dtype: 'int64', shape: [1] } },
      protos: [
        { name: 'q', dims: [64, 64], dataType: FLOAT8, rawData: Uint8Array.from({ length: 4096 }, (_, i) => i % 120) },
      ],
      opset: 21,
    },
    { feeds: { row: int64(5) } },
  ],
];

export const OTHER: Row[] = [
  [
    'nodes in no order',
    {
      ...linear({ initializers: { w: W } }),
      nodes: [op('Relu', ['h'], ['y']), { op: 'MatMul', name: 'fc', inputs: ['x', 'w'], outputs: ['h'] }],
    },
  ],
  [
    'names that kofn would give itself',
    {
      nodes: [
        { op: 'Gemm', name: 'fc', inputs: ['x', 'w', 'c'], outputs: ['y'], attributes: { beta: { float: 0.5 } } },
        op('Neg', ['y'], ['y/product']),
        { op: 'Add', name: 'fc/addend', inputs: ['y/product', 'fc/beta'], outputs: ['y/addend'] },
      ],
      inputs: { x: { dtype: 'float32', shape: [2, 16] } },
      outputs: { y: float, 'y/addend': float },
      initializers: { w: W, c: draw(2, 8), 'fc/beta': scalar(3) },
    },
  ],
  [
    'an output whose type is not said',
    following([op('Relu', ['h'], ['y'])], { outputs: { y: { untyped: true }, h: { untyped: true } } }),
  ],
  [
    'an integer output whose type is not said',
    following([op('Shape', ['h'], ['y'])], { outputs: { y: { untyped: true }, h: float } }),
  ],
  [
    'outputs that are sequences, maps, optional values and 4-bit integers',
    following(
      [
        op('Relu', ['h'], ['y']),
        op('SplitToSequence', ['h'], ['parts'], { axis: 1 }),
        { ...op('ZipMap', ['y'], ['chances'], { classlabels_int64s: [0, 1, 2, 3, 4, 5, 6, 7] }), domain: 'ai.onnx.ml' },
        op('Optional', ['h'], ['maybe']),
        op('QuantizeLinear', ['h', 'scale', 'zero'], ['q']),
      ],
      {
        outputs: {
          chances: { elementType: 1, kind: 'maps' },
          y: float,
          parts: { elementType: 1, kind: 'sequence' },
          maybe: { elementType: 1, kind: 'optional' },
          q: { elementType: UINT4 },
        },
        initializers: { scale: scalar(0.5) },
        protos: [{ name: 'zero', dims: [], dataType: UINT4, int32Data: [3] }],
        opset: 21,
      },
    ),
    {
      note: new RegExp(
        [
          '"chances" is a sequence of maps, .*"zipmap": False',
          '"parts" is a sequence of float32 tensors, ',
          '"maybe" is an optional value, ',
          '"q" is a uint4 tensor, ',
        ].join('.*\n.*'),
      ),
    },
  ],
  [
    'an input of size 0',
    following([op('Concat', ['h', 'none'], ['y'], { axis: 0 })], {
      inputs: { none: { dtype: 'float32', shape: [0, 8] } },
    }),
    { feeds: { none: tensor('float32', [0, 8], new Float32Array(0)) } },
  ],
  [
    'every way to write a Constant',
    following(
      [
        op('Constant', [], ['a'], { value_float: { float: 1.5 } }),
        op('Constant', [], ['b'], { value_floats: { floats: [1, 2, 3, 4, 5, 6, 7, 8] } }),
        op('Constant', [], ['i'], { value_int: 3 }),
        op('Constant', [], ['to'], { value_ints: [-1, 4] }),
        op('Constant', [], ['s'], { value_string: 'hé' }),
        op('Constant', [], ['ss'], { value_strings: { strings: ['a', 'b'] } }),
        op('Mul', ['h', 'a'], ['ha']),
        op('Add', ['ha', 'b'], ['hb']),
        op('Reshape', ['hb', 'to'], ['y']),
        op('Identity', ['i'], ['int']),
        op('Identity', ['s'], ['text']),
        op('Identity', ['ss'], ['texts']),
      ],
      { outputs: { y: float, int: { dtype: 'int64' }, text: { dtype: 'string' }, texts: { dtype: 'string' } } },
    ),
  ],
];
