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
 * 5. What replies are compared with is computed while the workers compute, a piece a turn of the event loop.
 */
import { randomBytes } from 'node:crypto';
import { float32, KofnError, throwIfAborted, type Float32Tensor, type Signal, type Tensor } from '@kofn/core';
import { agrees, deviation, Expectations, fingerprint, type Code, type Fingerprint, type Window } from '@kofn/encoder';
import { padsBefore } from '@kofn/graph';
import type { Connection } from '../fleet/connection.js';
import type { GroupOutputs, ReplyPart } from '../blocks/group-outputs.js';
import type { LocalBlocks } from '../blocks/recover.js';
import type { EncodedLayer } from '../blocks/shard-maker.js';
import { nextTurn } from '../blocks/turns.js';
import type { Suspicion } from '../blocks/suspicion.js';

/** More are not worth their memory: two of one worker are enough. */
const MAX_SUSPICIONS = 8;

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
  readonly #signal: Signal;
  #unwritten: number;
  /** Of each layer; made while the workers compute. */
  #expected: readonly Expectations[] | undefined;
  /** The end of a turn of the event loop, when the next piece may be computed. */
  #turn: Promise<void> | undefined;

  /** What it finds goes to `suspicions`; with `signal` the request ends. */
  constructor(
    fingerprints: Fingerprints,
    { code, local }: { code: Code; local: LocalBlocks },
    outputs: GroupOutputs,
    { suspicions, signal }: { suspicions: Suspicion[]; signal: Signal },
  ) {
    this.#fingerprints = fingerprints;
    this.#local = local;
    this.#suspicions = suspicions;
    this.#signal = signal;
    this.#outputs = outputs;
    this.#unwritten = code.k;
  }

  /** A call is on its way. After the k-th, and those that leave in the same turn, the master has time for its own part. */
  written(): void {
    if (--this.#unwritten === 0) void nextTurn().then(() => this.#compute(() => this.#outputs.complete));
  }

  /**
   * Throws WRONG_ANSWER when `values`, of each layer, are not what block `block` gives. A promise when what it is to give is not
   * computed yet.
   */
  look(connection: Connection, block: number, values: readonly Float32Array[]): Promise<void> | undefined {
    if (this.#isExpected(block)) return void this.#compare(connection, block, values);
    return this.#compute(() => this.#isExpected(block)).then(() => {
      throwIfAborted(this.#signal);
      this.#compare(connection, block, values);
    });
  }

  #compare(connection: Connection, block: number, values: readonly Float32Array[]): void {
    this.#outputs.parts.forEach(({ name, positions }, index) => {
      const print = this.#fingerprints[index]![block]!;
      const off = deviation(print, this.#expectations[index]!.of(block), values[index]!, positions);
      if (off <= 1) return;
      const { name: layer } = this.#outputs;
      const input = copyOf(this.#outputs.input);
      const { releases } = connection.trust;
      this.#suspicions.push({
        connection,
        releases,
        layer,
        block,
        input,
        values,
        local: this.#local,
        outputs: this.#outputs,
      });
      const much = off < 1000 ? `${off.toFixed(1)} times` : 'far beyond';
      throw new KofnError(
        'WRONG_ANSWER',
        `the reply is not block ${block} of layer ${name}: off by ${much} what rounding explains`,
      );
    });
  }

  get #expectations(): readonly Expectations[] {
    const { input, parts } = this.#outputs;
    return (this.#expected ??= this.#fingerprints.map(
      (prints, index) => new Expectations(prints, input.data as Float32Array, windowOf(parts[index]!, input)),
    ));
  }

  #isExpected(block: number): boolean {
    return this.#expectations.every(each => each.has(block));
  }

  /** Until it is `enough`, there is no more, or the request is over. */
  async #compute(enough: () => boolean): Promise<void> {
    while (!enough() && !this.#signal.aborted && (await this.#piece()));
  }

  /** Whether there was a piece to compute; resolves in the next turn of the event loop, when there may be another. */
  async #piece(): Promise<boolean> {
    if (this.#turn === undefined) {
      if (!this.#expectations.some(each => each.advance())) return false;
      this.#turn = nextTurn().then(() => void (this.#turn = undefined));
    }
    await this.#turn;
    return true;
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

async function confirm(suspicion: Suspicion): Promise<void> {
  const { connection, releases, layer, block, input, values, local, outputs } = suspicion;
  if (connection.trust.distrust !== undefined || connection.trust.releases !== releases) return;
  const own = outputs.own(await local.run(block, input));
  if (connection.trust.releases !== releases) return;
  if (own.every((mine, index) => agrees(mine, values[index]!))) connection.judged();
  else connection.judged(`layer ${layer}, block ${block}`);
}

export function copyOf({ shape, data }: Tensor): Float32Tensor {
  return float32(shape, Float32Array.from(data as Float32Array));
}

/** Where a part's filters stand on an input. */
export function windowOf({ layer, outputShape }: ReplyPart, input: Tensor): Window | undefined {
  const { conv } = layer;
  if (conv === undefined) return undefined;
  const { kernel, strides, dilations } = conv;
  const pads = padsBefore(conv, input.shape, outputShape);
  return { kernel, strides, dilations, pads, input: input.shape.slice(2), output: outputShape.slice(2) };
}
