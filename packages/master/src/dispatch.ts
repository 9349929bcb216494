/**
 * One coded step of one request: its input to n workers, the first k verified arrivals into the decoders, the rest
 * cancelled. Layers that share the input share the calls: a shard has a block of each. Called by run.ts; recover.ts supplies
 * what fewer than k workers cannot.
 *
 * Invariants
 * 1. Every call ends with this function: answered, failed, or cancelled by the scope. Nothing outlives it.
 * 2. A reply enters the decoders only when each of its blocks has passed `verifyBlock`; whatever else a worker answers is an
 *    erasure.
 * 3. Nothing but the decode set shapes the outputs: an arrival after the last one needed is not used.
 * 4. The report is taken at the moment of decoding, so our own cancellations never look like failures.
 */
import {
  abortable,
  abortReason,
  isFiniteTensor,
  isKofnError,
  KofnError,
  openScope,
  sleep,
  type Clock,
  type ErrorCode,
  type Float32Tensor,
  type Signal,
  type Tensor,
  type Tensors,
} from '@kofn/core';
import type { Code, DecodePlans, Quorum } from '@kofn/encoder';
import { EncodedInputs } from '@kofn/wire';
import pAny from 'p-any';
import pSome from 'p-some';
import type { Connection } from './connection.js';
import { GroupOutputs, type DeployedLayer } from './group-outputs.js';
import type { DispatchHooks, OnLoss } from './options.js';
import { substitute, type LocalBlocks, type Resends } from './recover.js';
import type { Arrival, Erasure, LayerReport } from './report.js';
import { localSpans, spansOf, type CallTimes } from './spans.js';

/** Layers that share their input, and therefore their shards. */
export interface DeployedGroup {
  readonly layers: readonly DeployedLayer[];
  readonly code: Code;
  readonly plans: DecodePlans;
  /** Shard name and worker of each block. */
  readonly shards: readonly { readonly name: string; readonly worker: number }[];
  readonly local: LocalBlocks;
  readonly resends: Resends;
}

export interface RequestContext {
  readonly request: number;
  /** Aborts when the caller cancels or the deadline passes. */
  readonly signal: Signal;
  /** Clock time at which the request must have ended. */
  readonly deadlineAt: number;
  readonly clock: Clock;
  readonly connections: readonly Connection[];
  readonly hooks: DispatchHooks;
  readonly onLoss: OnLoss;
  readonly systematicGraceMs: number;
}

/** What no sound worker answers to a finite input of the right shape. NaN is not among them: a layer may overflow. */
const WRONG_REPLIES: readonly ErrorCode[] = ['PROTOCOL', 'SHAPE_MISMATCH', 'DTYPE_MISMATCH'];

/** Nobody sees it but calls that nobody waits for; made once, for an error takes its stack with it. */
const ANSWERED = new KofnError('CANCELLED', 'the layer has its answer');

export interface LayerAnswer {
  readonly output: Float32Tensor;
  readonly report: LayerReport;
}

/**
 * Runs `group` on `input`; one answer a layer. Throws SHAPE_MISMATCH or DTYPE_MISMATCH (input), NOT_ENOUGH_WORKERS (fewer
 * than k left and `onLoss` is 'fail', or 'resend' and nobody to send to), ENGINE (the master's own), DEADLINE_EXCEEDED or
 * CANCELLED naming who had not answered.
 */
export function dispatch(group: DeployedGroup, input: Tensor, context: RequestContext): Promise<LayerAnswer[]> {
  return new GroupCall(group, input, context).run();
}

class GroupCall {
  readonly #group: DeployedGroup;
  readonly #context: RequestContext;
  readonly #outputs: GroupOutputs;
  readonly #start: number;
  readonly #arrivals: Arrival[] = [];
  readonly #erasures: Erasure[] = [];
  /** Parity blocks that wait for late data blocks, while the systematic grace lasts. */
  readonly #held: { block: number; values: readonly Float32Array[] }[] = [];
  #isHolding: boolean;
  /** Blocks whose worker has neither answered nor failed. */
  readonly #pending = new Map<number, Promise<void>>();
  /** Blocks that another worker was asked for. */
  readonly #resent = new Set<number>();
  /** What all workers are sent alike, encoded when the first is. */
  #encoded: EncodedInputs | undefined;
  /** The call that completed the decode set. */
  #last: CallTimes | undefined;
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(group: DeployedGroup, input: Tensor, context: RequestContext) {
    this.#group = group;
    this.#context = context;
    this.#start = context.clock.now();
    this.#isHolding = context.systematicGraceMs > 0;
    this.#outputs = new GroupOutputs(group.layers, group.plans, input);
  }

  async run(): Promise<LayerAnswer[]> {
    const { signal } = this.#context;
    try {
      return await this.#run();
    } catch (error) {
      throw signal.aborted ? this.#unanswered(abortReason(signal)) : error;
    }
  }

  async #run(): Promise<LayerAnswer[]> {
    const { clock, signal } = this.#context;
    let computedHere: number[] = [];
    if (!isFiniteTensor(this.#outputs.input)) {
      // Parity of NaN or infinity says nothing about the blocks, and it is nobody's fault: compute the layer here.
      computedHere = await this.#computeHere();
    } else {
      while (this.#lacksRoom) await this.#room(); // at most maxInFlight requests wait so
      using scope = openScope(clock, { parent: signal });
      const calls = this.#group.shards.map(({ worker }, block) => this.#callWorker(block, worker, scope.signal));
      calls.forEach((call, block) => this.#await(block, call));
      try {
        await this.#quorums(calls, scope.signal);
      } catch (error) {
        if (isKofnError(error)) throw error;
        computedHere = await this.#recover(scope.signal);
      } finally {
        // What has answered by now is in the decoders; whoever has not need not any more.
        scope.abort(ANSWERED);
      }
    }
    return this.#answers(computedHere);
  }

  #answers(computedHere: readonly number[]): LayerAnswer[] {
    const { code } = this.#group;
    const failed = new Set(this.#erasures.map(erasure => erasure.block));
    const outputs = this.#outputs.finish();
    const end = this.#context.clock.now();
    const ms = end - this.#start;
    const isOurs = computedHere.length > 0 || this.#last === undefined;
    const shared = {
      code: code.name,
      k: code.k,
      r: code.r,
      ms,
      spans: isOurs ? localSpans(ms) : spansOf(this.#last!, this.#start, end),
      arrivals: [...this.#arrivals],
      erasures: [...this.#erasures],
      computedHere,
      resent: [...this.#resent].sort((a, b) => a - b),
    };
    return outputs.map(({ name, output, decodeSet, recovered, errorGain }, index) => ({
      output,
      report: {
        ...shared,
        name,
        decodeSet,
        recovered: {
          lost: recovered.filter(block => failed.has(block)),
          late: recovered.filter(block => !failed.has(block)),
        },
        errorGain,
        bytesSent: index === 0 ? this.#bytesSent : 0,
        bytesReceived: index === 0 ? this.#bytesReceived : 0,
      },
    }));
  }

  /** Whether there would be enough workers, were they not full. */
  get #lacksRoom(): boolean {
    const { quorums } = this.#group.code;
    const holders = this.#holders;
    const canDecode = (takes: (connection: Connection) => boolean) =>
      quorums.every(({ members, count }) => members.filter(block => takes(holders[block]!)).length >= count);
    return !canDecode(({ takesCalls, isFull }) => takesCalls && !isFull) && canDecode(({ takesCalls }) => takesCalls);
  }

  /** Waits for room at a worker that is full. */
  async #room(): Promise<void> {
    using scope = openScope(this.#context.clock, { parent: this.#context.signal });
    const full = this.#holders.filter(({ isFull }) => isFull);
    try {
      await Promise.race(full.map(connection => connection.room(scope.signal)));
    } finally {
      scope.abort(new KofnError('CANCELLED', 'there is room'));
    }
  }

  /** Of each block. */
  get #holders(): Connection[] {
    return this.#group.shards.map(({ worker }) => this.#context.connections[worker]!);
  }

  /** The block may come until `call` settles. */
  #await(block: number, call: Promise<void>): void {
    const over = () => void this.#pending.delete(block);
    this.#pending.set(block, call.then(over, over)); // its erasure is recorded; after the answer it is nobody's
  }

  /**
   * Has `worker` run the shard of `block`, which it is given first when it `lacks` it, and hands its verified reply to the
   * decoders. Records the erasure and rejects else.
   */
  async #callWorker(block: number, worker: number, signal: Signal, { lacks = false } = {}): Promise<void> {
    const { request, clock, connections, hooks, deadlineAt } = this.#context;
    const { name } = this.#group.shards[block]!;
    const connection = connections[worker]!;
    const told = { request, layer: this.#group.layers[0]!.name, worker };
    try {
      if (lacks) await abortable(this.#group.resends.give(connection, block), signal);
      if (connection.takesCalls && !connection.isFull) hooks.beforeSend?.(told);
      this.#encoded ??= new EncodedInputs({ x: this.#outputs.input });
      let writtenAt: number | undefined;
      const sending = connection.infer(name, this.#encoded, {
        signal,
        bytes: this.#outputs.bytes,
        timeoutMs: Math.max(1, deadlineAt - clock.now()),
        onWritten: bytes => {
          writtenAt = clock.now();
          this.#bytesSent += bytes;
          hooks.afterWrite?.(told);
        },
      });
      const sentAt = clock.now();
      const reply = await sending;
      const repliedAt = clock.now();
      this.#bytesReceived += reply.bytesReceived;
      const values = this.#outputs.verified(reply.outputs);
      this.#arrive(block, worker, values, {
        sentAt,
        writtenAt,
        repliedAt,
        verifiedAt: clock.now(),
        worker: reply.times,
      });
    } catch (error) {
      const { code, message } = KofnError.from(error);
      if (WRONG_REPLIES.includes(code)) connection.mark(message);
      if (code === 'NOT_FOUND') connection.shards.delete(name);
      if (!signal.aborted) this.#erasures.push({ block, worker, code, message });
      throw error;
    }
  }

  #arrive(block: number, worker: number, values: readonly Float32Array[], times: CallTimes): void {
    if (this.#isHolding && block >= this.#group.code.k) this.#held.push({ block, values });
    else if (!this.#outputs.accept(block, values)) return;
    this.#last = times;
    this.#arrivals.push({ block, worker, ms: times.verifiedAt - this.#start });
  }

  /** Waits until every quorum of the code is met; rejects with an AggregateError as soon as one cannot be. */
  async #quorums(calls: readonly Promise<void>[], signal: Signal): Promise<void> {
    const { code } = this.#group;
    const { clock, systematicGraceMs } = this.#context;
    await abortable(Promise.all(code.quorums.map(quorum => quorumOf(quorum, calls))), signal);
    if (systematicGraceMs > 0) {
      using grace = openScope(clock, { parent: signal });
      await Promise.race([
        Promise.allSettled(calls.slice(0, code.k)),
        sleep(clock, systematicGraceMs, grace.signal),
      ]).finally(() => grace.abort(new KofnError('CANCELLED', 'the grace has ended')));
      this.#acceptHeld();
    }
  }

  #acceptHeld(): void {
    this.#isHolding = false;
    for (const { block, values } of this.#held.splice(0)) this.#outputs.accept(block, values);
  }

  /** Fewer than k workers are left: the policy decides. Returns the blocks computed here. */
  async #recover(signal: Signal): Promise<number[]> {
    this.#acceptHeld();
    switch (this.#context.onLoss) {
      case 'local':
        return this.#computeHere();
      case 'resend':
        await this.#resend(signal);
        return [];
      case 'fail':
        throw this.#notEnough();
    }
  }

  /** Asks other workers for what its own cannot bring any more, while the others still may, until the outputs are complete. */
  async #resend(signal: Signal): Promise<void> {
    const { connections } = this.#context;
    const { shards } = this.#group;
    /** Blocks asked of each worker. */
    const load = new Map<number, number>();
    for (const { worker } of shards) load.set(worker, (load.get(worker) ?? 0) + 1);
    while (!this.#outputs.complete) {
      for (const block of this.#outputs.missing(this.#pending.keys())) {
        const { name } = shards[block]!;
        const failed = this.#erasures.filter(erasure => erasure.block === block);
        const other = substitute(connections, { name, failed, load });
        if (other === undefined) throw this.#notEnough();
        load.set(other.index, (load.get(other.index) ?? 0) + 1);
        this.#resent.add(block);
        this.#await(block, this.#callWorker(block, other.index, signal, { lacks: !other.shards.has(name) }));
      }
      await abortable(Promise.race(this.#pending.values()), signal);
    }
  }

  /** Names the layer, who is lost and which blocks are missing. */
  #notEnough(): KofnError {
    const { k, n } = this.#group.code;
    const why = this.#erasures.map(({ worker, message }) => `worker ${worker}: ${message}`).join('; ');
    const lost = new Set(this.#erasures.map(({ block }) => block)).size;
    const missing = this.#outputs.missing(this.#pending.keys()).join(', ');
    const others = this.#context.onLoss === 'resend' ? ', and no other worker can compute them' : '';
    return new KofnError(
      'NOT_ENOUGH_WORKERS',
      `layer ${this.#outputs.name} needs ${k} of ${n} blocks and ${lost} are lost (${why}); data blocks ${missing} ` +
        `are missing${others}. Restart those workers, code with more parity, or let the master compute what is ` +
        `missing (onLoss: 'local')`,
    );
  }

  /** Computes here what no worker can bring any more, while the others still may, until the outputs are complete. */
  async #computeHere(): Promise<number[]> {
    const { signal } = this.#context;
    const computed: number[] = [];
    while (!this.#outputs.complete) {
      const [block] = this.#outputs.missing(this.#pending.keys());
      if (block === undefined) {
        await abortable(Promise.race(this.#pending.values()), signal);
      } else {
        const outputs = await abortable(this.#runHere(block), signal);
        if (this.#outputs.accept(block, this.#outputs.own(outputs))) computed.push(block);
      }
    }
    return computed.sort((a, b) => a - b);
  }

  async #runHere(block: number): Promise<Tensors> {
    try {
      return await this.#group.local.run(block, this.#outputs.input);
    } catch (error) {
      const cause = KofnError.from(error, 'ENGINE');
      const what = `the master itself could not compute block ${block} of layer ${this.#outputs.name}`;
      throw new KofnError(cause.code, `${what}: ${cause.message}`, { cause });
    }
  }

  /** `reason` (a deadline, a cancellation) with the layer and the workers that had not answered. */
  #unanswered(reason: KofnError): KofnError {
    if (reason.code !== 'DEADLINE_EXCEEDED') return reason;
    const settled = new Set([...this.#arrivals, ...this.#erasures].map(({ block }) => block));
    const silent = this.#group.shards.filter((_, block) => !settled.has(block)).map(({ worker }) => worker);
    const failed = this.#erasures.map(({ worker, code }) => `worker ${worker} failed (${code})`);
    const who = [...(silent.length > 0 ? [`no answer from worker ${silent.join(', ')}`] : []), ...failed].join('; ');
    return new KofnError(
      'DEADLINE_EXCEEDED',
      `${reason.message}: layer ${this.#outputs.name} had ${this.#arrivals.length} of ${this.#group.code.k} blocks (${who})`,
      { cause: reason },
    );
  }
}

function quorumOf(quorum: Quorum, calls: readonly Promise<void>[]): Promise<unknown> {
  const members = quorum.members.map(block => calls[block]!);
  return quorum.count === 1 ? pAny(members) : pSome(members, { count: quorum.count });
}
