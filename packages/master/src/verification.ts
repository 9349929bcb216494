/**
 * Who computes wrongly. A reply that is not its block's (`verify: 'fingerprint'`) is an erasure at once; after the answer the master
 * computes that block itself and compares: then the worker is known to be wrong, or the alarm was false. Called by dispatch.ts for
 * each reply, by deployment.ts after each request; trust.ts counts, connection.ts puts a worker aside.
 *
 * Invariants
 * 1. A reply that fails its check shapes no output, whatever is found out about it later.
 * 2. No worker is marked but by the master's own computation, and none is put aside for less than two such marks.
 * 3. What is recomputed is bounded: one at a time, and at most MAX_SUSPICIONS wait; the others stay unconfirmed.
 * 4. After dispose nothing is pending.
 */
import { randomBytes } from 'node:crypto';
import { KofnError, type Tensor } from '@kofn/core';
import {
  agrees,
  deviation,
  expectations,
  fingerprint,
  type Expectation,
  type Fingerprint,
  type Window,
} from '@kofn/encoder';
import { padsBefore } from '@kofn/graph';
import type { Connection } from './connection.js';
import type { GroupOutputs, ReplyPart } from './group-outputs.js';
import type { EncodedLayer } from './placement.js';
import type { LocalBlocks } from './recover.js';

/** More are not worth their memory: two of one worker are enough. */
const MAX_SUSPICIONS = 8;

/** A reply that is not believed. */
export interface Suspicion {
  readonly connection: Connection;
  /** Names of the layers, for people. */
  readonly layer: string;
  readonly block: number;
  /** As the shard takes it. */
  readonly input: Tensor;
  /** What was replied, of each layer. */
  readonly values: readonly Float32Array[];
  readonly local: LocalBlocks;
  readonly outputs: GroupOutputs;
}

/** By layer of a group, then block. */
export type Fingerprints = readonly (readonly Fingerprint[])[];

/** Of `layers`, which share an input, for all blocks: encodes each once more. */
export function fingerprintsOf(layers: readonly EncodedLayer[]): Fingerprints {
  return layers.map(({ layer: { fanIn }, encoding }) => {
    const { groups, blockUnits } = encoding.partition;
    const shape = { groups, blockUnits, fanIn };
    return Array.from({ length: encoding.code.n }, (_, block) =>
      fingerprint(encoding.block(block), shape, randomBytes),
    );
  });
}

/** The check of the replies to one request. */
export class ReplyCheck {
  readonly #fingerprints: Fingerprints;
  readonly #outputs: GroupOutputs;
  readonly #local: LocalBlocks;
  readonly #suspicions: Suspicion[];
  #unwritten: number;
  /** By layer, then block; made while the workers compute. */
  #expected: readonly (readonly Expectation[])[] | undefined;

  /** What it finds goes to `suspicions`. */
  constructor(
    fingerprints: Fingerprints,
    { local }: { local: LocalBlocks },
    outputs: GroupOutputs,
    { suspicions }: { suspicions: Suspicion[] },
  ) {
    this.#fingerprints = fingerprints;
    this.#local = local;
    this.#suspicions = suspicions;
    this.#outputs = outputs;
    this.#unwritten = fingerprints[0]!.length;
  }

  /** A call is on its way. After the last the master has time for its own part. */
  written(): void {
    if (--this.#unwritten === 0) this.#expect();
  }

  /** Throws WRONG_ANSWER when `values`, of each layer, are not what block `block` gives. */
  look(connection: Connection, block: number, values: readonly Float32Array[]): void {
    const expected = this.#expect();
    this.#outputs.parts.forEach(({ name, positions }, index) => {
      const print = this.#fingerprints[index]![block]!;
      const off = deviation(print, expected[index]![block]!, values[index]!, positions);
      if (off <= 1) return;
      const { name: layer, input } = this.#outputs;
      this.#suspicions.push({ connection, layer, block, input, values, local: this.#local, outputs: this.#outputs });
      const much = off < 1000 ? `${off.toFixed(1)} times` : 'far beyond';
      throw new KofnError(
        'WRONG_ANSWER',
        `the reply is not block ${block} of layer ${name}: off by ${much} what rounding explains`,
      );
    });
  }

  #expect(): readonly (readonly Expectation[])[] {
    const { input, parts } = this.#outputs;
    return (this.#expected ??= this.#fingerprints.map((prints, index) =>
      expectations(prints, input.data as Float32Array, windowOf(parts[index]!, input)),
    ));
  }
}

/** What is suspected on one deployment, looked into behind its answers. */
export class Investigation implements AsyncDisposable {
  readonly #waiting: Suspicion[] = [];
  #running: Promise<void> | undefined;
  #isClosed = false;

  add(suspicions: readonly Suspicion[]): void {
    for (const suspicion of suspicions) {
      if (!this.#isClosed && this.#waiting.length < MAX_SUSPICIONS) this.#waiting.push(suspicion);
    }
    if (this.#waiting.length > 0) this.#running ??= this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#waiting.length = 0;
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      await confirm(next).catch(() => undefined); // the master's engine failed: nothing is known
    }
    this.#running = undefined;
  }
}

async function confirm({ connection, layer, block, input, values, local, outputs }: Suspicion): Promise<void> {
  if (connection.trust.distrust !== undefined) return;
  const own = outputs.own(await local.run(block, input));
  if (own.every((mine, index) => agrees(mine, values[index]!))) connection.judged();
  else connection.judged(`layer ${layer}, block ${block}`);
}

function windowOf({ layer, outputShape }: ReplyPart, input: Tensor): Window | undefined {
  const { conv } = layer;
  if (conv === undefined) return undefined;
  const { kernel, strides, dilations } = conv;
  const pads = padsBefore(conv, input.shape, outputShape);
  return { kernel, strides, dilations, pads, input: input.shape.slice(2), output: outputShape.slice(2) };
}
