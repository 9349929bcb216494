/**
 * Random small models: branches that share weights and inputs, residual sums, concatenations, several inputs and outputs, If and
 * Loop whose bodies read values from outside.
 */
import { elementCount, seededRng, tensor, type Tensor, type Tensors } from '@kofn/core';
import fc from 'fast-check';
import { drawn, type ModelSpec, type NodeSpec } from './onnx-models.js';

export interface RandomGraph {
  readonly spec: ModelSpec;
  readonly feeds: Tensors;
}

const OPS = ['Conv', 'Conv', 'Dense', 'Dense', 'Left', 'Relu', 'Add', 'Concat', 'Flatten', 'If', 'Loop'] as const;

/** What a step is made from; each number is taken modulo what there is to choose from. */
interface Growth {
  readonly op: (typeof OPS)[number];
  readonly from: number;
  readonly other: number;
  readonly size: number;
}

interface Value {
  readonly name: string;
  readonly shape: readonly number[];
}

export const randomGraph: fc.Arbitrary<RandomGraph> = fc
  .record({
    growths: fc.array(
      fc.record({ op: fc.constantFrom(...OPS), from: fc.nat(99), other: fc.nat(99), size: fc.nat(9) }),
      { minLength: 3, maxLength: 14 },
    ),
    batch: fc.integer({ min: 1, max: 3 }),
    flag: fc.boolean(),
    seed: fc.nat(2 ** 31),
  })
  .map(({ growths, batch, flag, seed }) => new Grower(batch, flag, seed).grow(growths));

class Grower {
  readonly #rng;
  readonly #feeds: Record<string, Tensor>;
  readonly #weights: Record<string, Tensor> = {};
  readonly #nodes: NodeSpec[] = [];
  readonly #values: Value[];

  constructor(batch: number, flag: boolean, seed: number) {
    this.#rng = seededRng(seed);
    const image = this.#draw([batch, 4, 5, 6]);
    const row = this.#draw([batch, 8]);
    this.#feeds = { image, row, flag: tensor('bool', [], Uint8Array.of(flag ? 1 : 0)) };
    this.#values = [
      { name: 'image', shape: image.shape },
      { name: 'row', shape: row.shape },
    ];
  }

  grow(growths: readonly Growth[]): RandomGraph {
    for (const growth of growths) this.#add(growth);
    // Every third value is an output, so that some are read inside and outside; the last always.
    const made = this.#values.slice(2);
    const outputs = made.filter((_, i) => i % 3 === 0 || i === made.length - 1);
    // The inputs must be used: ONNX Runtime drops what nothing reads, feeds and all.
    const used = ['image', 'row'].map(input => this.#step('Identity', [input], this.#shape(input)).name);
    return {
      spec: {
        nodes: this.#nodes,
        inputs: Object.fromEntries(
          Object.entries(this.#feeds).map(([name, { dtype, shape }]) => [name, { dtype, shape }]),
        ),
        outputs: Object.fromEntries(
          [...outputs.map(({ name }) => name), ...used, this.#chosen()].map(name => [name, { dtype: 'float32' }]),
        ),
        initializers: this.#weights,
      },
      feeds: this.#feeds,
    };
  }

  #add({ op, from, other, size }: Growth): void {
    const source = this.#values[from % this.#values.length]!;
    const { name, shape } = source;
    const [batch = 0, width = 0] = shape;
    const alike = this.#values.filter(value => value.shape.join() === shape.join());
    const partner = alike[other % alike.length]!;
    switch (op) {
      case 'Conv': {
        if (shape.length !== 4) return;
        const units = 4 + 2 * (size % 3);
        const group = width % 2 === 0 && size % 4 === 3 ? 2 : 1;
        const kernel = 1 + 2 * (size % 2);
        const weights = this.#weight([units, width / group, kernel, kernel]);
        const pads = new Array<number>(4).fill((kernel - 1) / 2);
        this.#step('Conv', [name, weights], [batch, units, ...shape.slice(2)], { pads, group });
        return;
      }
      case 'Dense': {
        const inner = shape.at(-1)!;
        const units = 4 + (size % 5);
        if (shape.length === 2 && size % 2 === 0) {
          const inputs = [name, this.#weight([units, inner]), this.#weight([units])];
          this.#step('Gemm', inputs, [batch, units], { transB: 1 });
        } else this.#step('MatMul', [name, this.#weight([inner, units])], [...shape.slice(0, -1), units]);
        return;
      }
      case 'Left': {
        const units = 4 + (size % 4);
        this.#step(
          'MatMul',
          [this.#weight([units, shape.at(-2)!]), name],
          [...shape.slice(0, -2), units, shape.at(-1)!],
        );
        return;
      }
      case 'Relu':
        this.#step('Relu', [name], shape);
        return;
      case 'Add':
        this.#step('Add', [name, partner.name], shape);
        return;
      case 'Concat':
        this.#step('Concat', [name, partner.name], [batch, 2 * width, ...shape.slice(2)], { axis: 1 });
        return;
      case 'Flatten':
        this.#step('Flatten', [name], [batch, elementCount(shape.slice(1))]);
        return;
      case 'If':
        this.#if(source, partner);
        return;
      case 'Loop':
        this.#loop(source, partner, 1 + (size % 3));
        return;
    }
  }

  /** Both branches read `a` and `b` from outside. */
  #if(a: Value, b: Value): string {
    const id = this.#nodes.length;
    const branch = (op: string) => ({
      graph: {
        nodes: [{ op, inputs: [a.name, b.name], outputs: [`${op}${id}`] }],
        outputs: { [`${op}${id}`]: { dtype: 'float32' as const } },
      },
    });
    const attributes = { then_branch: branch('Add'), else_branch: branch('Sub') };
    return this.#step('If', ['flag'], a.shape, attributes).name;
  }

  /** state = state / 2 + b, `count` times, with b from outside. */
  #loop(a: Value, b: Value, count: number): void {
    const id = this.#nodes.length;
    const inside = (what: string) => `${what}${id}`;
    this.#weights[`count${count}`] = tensor('int64', [], BigInt64Array.of(BigInt(count)));
    this.#weights['half'] = tensor('float32', [], Float32Array.of(0.5));
    const body = {
      graph: {
        nodes: [
          { op: 'Identity', inputs: [inside('go')], outputs: [inside('goes on')] },
          { op: 'Mul', inputs: [inside('state'), 'half'], outputs: [inside('halved')] },
          { op: 'Add', inputs: [inside('halved'), b.name], outputs: [inside('next')] },
        ],
        inputs: {
          [inside('turn')]: { dtype: 'int64' as const, shape: [] },
          [inside('go')]: { dtype: 'bool' as const, shape: [] },
          [inside('state')]: { dtype: 'float32' as const, shape: a.shape },
        },
        outputs: {
          [inside('goes on')]: { dtype: 'bool' as const, shape: [] },
          [inside('next')]: { dtype: 'float32' as const, shape: a.shape },
        },
      },
    };
    this.#step('Loop', [`count${count}`, '', a.name], a.shape, { body });
  }

  /** An output that reads the flag, which nothing else might. */
  #chosen(): string {
    const row = this.#values[1]!;
    return this.#if(row, row);
  }

  #step(op: string, inputs: string[], shape: readonly number[], attributes: NodeSpec['attributes'] = {}): Value {
    const value = { name: `v${this.#nodes.length}`, shape };
    this.#nodes.push({ op, name: `${op}${this.#nodes.length}`, inputs, outputs: [value.name], attributes });
    this.#values.push(value);
    return value;
  }

  /** The name of weights of `shape`; equal shapes share them. */
  #weight(shape: readonly number[]): string {
    const name = `w${shape.join('x')}`;
    this.#weights[name] ??= this.#draw(shape);
    return name;
  }

  #shape(name: string): readonly number[] {
    return this.#values.find(value => value.name === name)!.shape;
  }

  #draw(shape: readonly number[]): Tensor {
    return drawn(shape, () => 0.5 * this.#rng.normal());
  }
}
