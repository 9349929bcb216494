/** Graphs inside nodes, with constants of their own, and constants that are sparse. */
import { tensor } from '@kofn/core';
import type { GraphSpec } from '../onnx-models.js';
import {
  draw,
  thin,
  truth,
  float,
  constant,
  op,
  If,
  following,
  given,
  branch,
  nested,
  counting,
  looped,
  FED,
  linear,
  type Row,
} from './parts.js';

export const INNER: Row[] = [
  [
    'Constants in both branches of an If',
    following([If('c', 'y', [branch(draw(8)), branch(draw(8))])], { inputs: given }),
    { feeds: FED },
  ],
  [
    'the other branch of one',
    following([If('c', 'y', [branch(draw(8)), branch(draw(8))])], { inputs: given }),
    { feeds: { c: truth(false) } },
  ],
  [
    'constants of more than 1 KiB in one',
    following([If('c', 'y', [branch(draw(40, 1, 8)), branch(draw(40, 1, 8), 'initializer')])], { inputs: given }),
    { feeds: FED },
  ],
  [
    'two Ifs whose constants are called alike',
    following(
      [
        If('c', 'a', [branch(draw(8)), branch(draw(8))]),
        If('c', 'b', [branch(draw(8)), branch(draw(8))]),
        op('Mul', ['a', 'b'], ['y']),
      ],
      {
        inputs: given,
      },
    ),
    { feeds: FED },
  ],
  ...([1, 3] as const).flatMap(depth =>
    (['Constant', 'initializer'] as const).map((by): Row => {
      const spec = following([If('c', 'y', [nested(depth, by), nested(depth, by)])], { inputs: given });
      return [`Ifs ${depth + 1} deep, each with its ${by}`, spec, { feeds: FED }];
    }),
  ),
  [
    'a Constant in a Loop',
    following(looped(counting([constant('k', draw(8)), op('Add', ['before', 'k'], ['behind'])]))),
  ],
  ['a Loop with an If in it', following(looped(counting([If('going', 'behind', [branch(draw(8)), branch(draw(8))])])))],
  [
    'a Scan',
    following([
      constant('zero', tensor('float32', [8], new Float32Array(8))),
      op('Scan', ['zero', 'h'], ['last', 'y'], {
        num_scan_inputs: 1,
        body: {
          graph: {
            nodes: [
              constant('k', draw(8)),
              op('Add', ['state', 'row'], ['s']),
              op('Add', ['s', 'k'], ['next']),
              op('Identity', ['next'], ['out']),
            ],
            inputs: { state: { dtype: 'float32', shape: [8] }, row: { dtype: 'float32', shape: [8] } },
            outputs: { next: float, out: float },
          },
        },
      }),
    ]),
  ],
  [
    'an inner constant called like an outer one',
    following(
      [If('c', 'p', [branch(draw(8), 'initializer'), branch(draw(8), 'initializer')]), op('Add', ['p', 'k'], ['y'])],
      {
        inputs: given,
        initializers: { k: draw(8) },
      },
    ),
    { feeds: FED },
  ],
  [
    'local functions, one with an If',
    following(
      [
        { op: 'Twice', domain: 'test', inputs: ['h', 'c'], outputs: ['a'] },
        { op: 'Twice', domain: 'test', inputs: ['a', 'c'], outputs: ['y'] },
      ],
      {
        inputs: given,
        functions: [
          {
            name: 'Twice',
            inputs: ['h', 'c'],
            outputs: ['y'],
            nodes: [If('c', 'y', [branch(draw(8)), branch(draw(8))])],
          },
        ],
      },
    ),
    { feeds: FED },
  ],
];

const sparseBranch = (): GraphSpec => ({
  nodes: [op('MatMul', ['h', 's'], ['o'])],
  outputs: { o: float },
  sparse: { s: { dense: thin(8, 8), by: 'place' } },
});
export const SPARSE: Row[] = [
  ['weights by place', linear({ sparse: { w: { dense: thin(16, 8), by: 'place' } } })],
  ['weights by coordinates', linear({ sparse: { w: { dense: thin(16, 8), by: 'coordinates' } } })],
  [
    'weights that are all 0',
    linear({ sparse: { w: { dense: tensor('float32', [16, 8], new Float32Array(128)), by: 'place' } } }),
  ],
  [
    'weights of a Constant',
    linear({}, [op('Constant', [], ['w'], { sparse_value: { sparse: { dense: thin(16, 8), by: 'coordinates' } } })]),
  ],
  ['those of branches', following([If('c', 'y', [sparseBranch(), sparseBranch()])], { inputs: given }), { feeds: FED }],
  [
    'a Constant of a branch',
    following(
      [
        If('c', 'y', [
          {
            nodes: [
              op('Constant', [], ['s'], { sparse_value: { sparse: { dense: thin(8, 8), by: 'place' } } }),
              op('MatMul', ['h', 's'], ['o']),
            ],
            outputs: { o: float },
          },
          branch(draw(8)),
        ]),
      ],
      { inputs: given },
    ),
    { feeds: FED },
  ],
];
