/**
 * One coded step of one request: its input to n workers, the first k verified arrivals into the decoders, the rest
 * cancelled. Layers that share the input share the calls: a shard has a block of each. Called by run.ts; worker-call.ts is one
 * call, hedge.ts says when a block is late, recover.ts supplies what fewer than k workers cannot.
 *
 * Invariants
 * 1. Every call ends with this function: answered, failed, or cancelled by the scope. Nothing outlives it but what an audit keeps.
 * 2. A reply enters the decoders only when each of its blocks has passed `verifyBlock` and its fingerprint; whatever else a worker answers is an
 *    erasure.
 * 3. Nothing but the decode set shapes the outputs: an arrival after the last one needed is not used.
 * 4. The report is taken at the moment of decoding, so our own cancellations never look like failures.
 * 5. With a hedge a block has two holders; the first reply wins and ends the other's call.
 */
import {
  abortable,
  abortReason,
  isFiniteTensor,
  isKofnError,
  KofnError,
  openScope,
  sleep,
  type Float32Tensor,
  type Signal,
  type Tensor,
  type Tensors,
} from '@kofn/core';
import type { Quorum } from '@kofn/encoder';
import { EncodedInputs } from '@kofn/wire';
import pAny from 'p-any';
import pSome from 'p-some';
import type { Audit } from '../verify/audit.js';
import type { DeployedGroup } from './deployed-group.js';
import { GroupOutputs } from '../blocks/group-outputs.js';
import { Hedging, type Hedge } from '../blocks/hedge.js';
import { lacksRoom, room } from '../fleet/room.js';
import { returned, substitute } from '../blocks/recover.js';
import { rejectedOf, type Arrival, type AskedCall, type Erasure, type LayerReport } from '../contract/report.js';
import { localSpans, spansOf, type CallTimes } from '../contract/spans.js';
import { ReplyCheck } from '../verify/verification.js';
import { ANSWERED, callWorker, type RequestContext } from '../blocks/worker-call.js';

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
  readonly #check: ReplyCheck | undefined;
  readonly #start: number;
  readonly #arrivals: Arrival[] = [];
  readonly #erasures: Erasure[] = [];
  /** Calls that have neither been answered nor failed; a reply that comes behind the answer is told in them. */
  readonly #open = new Set<AskedCall>();
  /** Parity blocks that wait for late data blocks, while the systematic grace lasts. */
  readonly #held: { block: number; values: readonly Float32Array[] }[] = [];
  #isHolding: boolean;
  /** Calls that have neither been answered nor failed, with their blocks. */
  readonly #pending = new Map<Promise<void>, number>();
  /** Blocks that another worker was asked for. */
  readonly #resent = new Set<number>();
  #hedging: Hedging | undefined;
  #audit: Audit | undefined;
  /** What all workers are sent alike, encoded when the first is. */
  #encoded: EncodedInputs | undefined;
  /** The call that completed the decode set. */
  #last: CallTimes | undefined;
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(group: DeployedGroup, input: Tensor, context: RequestContext) {
    this.#group = { ...group }; // who holds what is for this call as it is now
    this.#context = context;
    this.#start = context.clock.now();
    this.#isHolding = context.systematicGraceMs > 0;
    this.#outputs = new GroupOutputs(group.layers, group.plans, input);
    this.#check = group.fingerprints && new ReplyCheck(group.fingerprints, group, this.#outputs, context);
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
    const { clock, signal, connections } = this.#context;
    let computedHere: number[] = [];
    if (!isFiniteTensor(this.#outputs.input)) {
      // Parity of NaN or infinity says nothing about the blocks, and it is nobody's fault: compute the layer here.
      computedHere = await this.#computeHere();
    } else {
      while (lacksRoom(this.#group, connections)) await room(this.#group, connections, { clock, signal }); // at most maxInFlight requests wait so
      using scope = openScope(clock, { parent: signal });
      using audit = this.#group.audits?.begin(this.#outputs, this.#group.local, this.#context);
      this.#audit = audit;
      const calls = audit?.signal ?? scope.signal;
      try {
        const { hedge } = this.#group;
        const isDecodable = hedge === undefined ? await this.#quorums(calls) : await this.#hedgedQuorums(hedge, calls);
        if (isDecodable) audit?.keep(this.#pending.keys());
        else computedHere = await this.#recover(calls);
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
      startMs: this.#start - this.#context.startedAt,
      arrivals: [...this.#arrivals],
      erasures: [...this.#erasures],
      unanswered: [...this.#open],
      rejected: rejectedOf(this.#erasures),
      computedHere,
      resent: ascending([...this.#resent, ...(this.#hedging?.lost ?? [])]),
      hedged: ascending(this.#hedging?.late ?? NONE),
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

  /** The block may come until `call` settles. */
  #await(block: number, call: Promise<void>): void {
    const over = () => void this.#pending.delete(settled);
    const settled = call.then(over, over); // its erasure is recorded; after the answer it is nobody's
    this.#pending.set(settled, block);
  }

  /**
   * Has `worker` run the shard of `block`, which it is given first when it `lacks` it, and hands its verified reply to the
   * decoders. Records the erasure and rejects else.
   */
  #callWorker(block: number, worker: number, signal: Signal, { lacks = false } = {}): Promise<void> {
    const connection = this.#context.connections[worker]!;
    const asked: AskedCall = { block, worker };
    const { shards, resends } = this.#group;
    this.#open.add(asked);
    return callWorker(this.#context, connection, {
      shard: shards[block]!.name,
      layer: this.#group.layers[0]!.name,
      bytes: this.#outputs.bytes,
      block: { macs: this.#outputs.macs, pace: this.#group.pace },
      signal,
      putting: lacks ? resends.give(connection, block) : resends.missing(connection, block, shards[block]!.name),
      inputs: () => (this.#encoded ??= this.#encode()),
      onWritten: bytes => {
        this.#bytesSent += bytes;
        this.#check?.written();
      },
      verify: ({ outputs, bytesReceived }) => {
        this.#bytesReceived += bytesReceived;
        const values = this.#outputs.verified(outputs);
        return this.#check?.look(connection, block, values)?.then(() => values) ?? values;
      },
      take: (values, times) => this.#arrive(asked, values, times),
      onLate: ({ queueMs }, atMs) => (asked.lateMs = atMs - this.#start - queueMs),
      onFailure: (code, message) => this.#open.delete(asked) && this.#erasures.push({ block, worker, code, message }),
    });
  }

  #encode(): EncodedInputs {
    const { input, macs } = this.#outputs;
    return new EncodedInputs({ x: input }, { macs, requestId: this.#context.id });
  }

  #arrive(asked: AskedCall, values: readonly Float32Array[], times: CallTimes): void {
    const { block, worker } = asked;
    this.#open.delete(asked);
    asked.lateMs = times.verifiedAt - this.#start - (times.worker?.queueMs ?? 0); // an audit's may come behind the answer
    this.#audit?.take(block, this.#context.connections[worker]!, values);
    if (this.#isHolding && block >= this.#group.code.k) this.#held.push({ block, values });
    else if (!this.#outputs.accept(block, values)) return;
    this.#last = times;
    this.#arrivals.push({ block, worker, ms: times.verifiedAt - this.#start });
  }

  /** Calls every block's worker and waits until the code's quorums are met; false as soon as one cannot be. */
  async #quorums(signal: Signal): Promise<boolean> {
    const calls = this.#group.shards.map(({ worker }, block) => this.#callWorker(block, worker, signal));
    calls.forEach((call, block) => this.#await(block, call));
    try {
      await abortable(Promise.all(this.#group.code.quorums.map(quorum => quorumOf(quorum, calls))), signal);
    } catch (error) {
      if (isKofnError(error)) throw error;
      return false;
    }
    await this.#grace(signal);
    return true;
  }

  /** As `#quorums`, and calls the other holders of blocks that are late or lost. */
  async #hedgedQuorums(hedge: Hedge, signal: Signal): Promise<boolean> {
    const { shards } = this.#group;
    this.#hedging = new Hedging({ ...this.#context, signal }, hedge, (block, worker, own) => {
      const call = this.#callWorker(block, worker, own);
      this.#await(block, call);
      return call;
    });
    shards.forEach(({ worker }, block) => this.#hedging!.callOwn(block, worker));
    for (;;) {
      const held = this.#held.map(({ block }) => block);
      if (this.#outputs.missing(held).length === 0) break;
      if (this.#lacking(held).length > 0) return false;
      await this.#news(signal);
    }
    await this.#grace(signal);
    return true;
  }

  /** The data blocks that no call can bring any more, once whoever else holds them has been called. */
  #lacking(held: readonly number[] = []): number[] {
    const coming = () => [...this.#pending.values(), ...held];
    const missing = this.#outputs.missing(coming());
    if (this.#hedging === undefined || (missing.length === 0 && !this.#hedging.isLate)) return missing;
    const { shards, code } = this.#group;
    const arrived = new Set(this.#arrivals.map(({ block }) => block));
    this.#hedging.callOthers(shards.slice(0, code.k), { arrived, coming: new Set(coming()) });
    return this.#outputs.missing(coming());
  }

  /** Until a call settles, or the blocks that have not come are late. */
  async #news(signal: Signal): Promise<void> {
    const lateness = this.#hedging?.lateness;
    await abortable(Promise.race([...this.#pending.keys(), ...(lateness === undefined ? [] : [lateness])]), signal);
  }

  /** Waits for late data blocks as long as they may take. */
  async #grace(signal: Signal): Promise<void> {
    const { clock, systematicGraceMs } = this.#context;
    if (systematicGraceMs === 0) return;
    using grace = openScope(clock, { parent: signal });
    const data = [...this.#pending].filter(([, block]) => block < this.#group.code.k).map(([call]) => call);
    await Promise.race([Promise.all(data), sleep(clock, systematicGraceMs, grace.signal)]).finally(() =>
      grace.abort(new KofnError('CANCELLED', 'the grace has ended')),
    );
    this.#acceptHeld();
  }

  #acceptHeld(): void {
    this.#isHolding = false;
    for (const { block, values } of this.#held.splice(0)) this.#outputs.accept(block, values);
  }

  /** Fewer than k workers are left: the policy decides. Returns the blocks computed here. */
  async #recover(signal: Signal): Promise<number[]> {
    this.#acceptHeld();
    if (await this.#askAgain(signal)) return [];
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

  /** Asks those again that could not be reached and are back, as when workers are restarted one by one; whether that is enough. */
  async #askAgain(signal: Signal): Promise<boolean> {
    const back = returned(this.#erasures, this.#context.connections);
    for (const { block, worker } of back) this.#await(block, this.#callWorker(block, worker, signal));
    while (back.length > 0 && !this.#outputs.complete && this.#lacking().length === 0) await this.#news(signal);
    return this.#outputs.complete;
  }

  /** Asks other workers for what its own cannot bring any more, while the others still may, until the outputs are complete. */
  async #resend(signal: Signal): Promise<void> {
    const { connections } = this.#context;
    const { shards } = this.#group;
    /** Blocks asked of each worker. */
    const load = new Map<number, number>();
    for (const { worker } of shards) load.set(worker, (load.get(worker) ?? 0) + 1);
    while (!this.#outputs.complete) {
      for (const block of this.#lacking()) {
        const { name } = shards[block]!;
        const failed = this.#erasures.filter(erasure => erasure.block === block);
        const other = substitute(connections, { name, failed, load });
        if (other === undefined) throw this.#notEnough();
        load.set(other.index, (load.get(other.index) ?? 0) + 1);
        this.#resent.add(block);
        this.#await(block, this.#callWorker(block, other.index, signal, { lacks: !other.shards.has(name) }));
      }
      await this.#news(signal);
    }
  }

  /** Names the layer, who is lost and which blocks are missing. */
  #notEnough(): KofnError {
    const { k, n } = this.#group.code;
    const why = this.#erasures.map(({ worker, message }) => `worker ${worker}: ${message}`).join('; ');
    const lost = new Set(this.#erasures.map(({ block }) => block)).size;
    const missing = this.#outputs.missing(this.#pending.values()).join(', ');
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
      const [block] = this.#lacking();
      if (block === undefined) {
        await this.#news(signal);
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
    const arrived = new Set(this.#arrivals.map(({ block }) => block));
    const lost = new Set(this.#erasures.map(({ block, worker }) => `${block} ${worker}`));
    const called = this.#group.shards.flatMap(({ worker, other }, block) => {
      const both = this.#hedging?.isOtherCalled(block) === true ? [worker, other!] : [worker];
      return arrived.has(block) ? [] : both.filter(each => !lost.has(`${block} ${each}`));
    });
    const silent = [...new Set(called)].sort((a, b) => a - b);
    const failed = this.#erasures.map(({ worker, code }) => `worker ${worker} failed (${code})`);
    const who = [...(silent.length > 0 ? [`no answer from worker ${silent.join(', ')}`] : []), ...failed].join('; ');
    return new KofnError(
      'DEADLINE_EXCEEDED',
      `${reason.message}: layer ${this.#outputs.name} had ${this.#arrivals.length} of ${this.#group.code.k} blocks (${who})`,
      { cause: reason },
    );
  }
}

const NONE: readonly number[] = [];

function ascending(blocks: Iterable<number>): number[] {
  return [...new Set(blocks)].sort((a, b) => a - b);
}

function quorumOf(quorum: Quorum, calls: readonly Promise<void>[]): Promise<unknown> {
  const members = quorum.members.map(block => calls[block]!);
  return quorum.count === 1 ? pAny(members) : pSome(members, { count: quorum.count });
}
