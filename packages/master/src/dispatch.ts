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
  elementCount,
  isFiniteTensor,
  isKofnError,
  KofnError,
  openScope,
  sleep,
  type Clock,
  type ErrorCode,
  type Float32Tensor,
  type Tensor,
  type Tensors,
} from '@kofn/core';
import {
  ProgressiveDecoder,
  verifyBlock,
  type Code,
  type DecodePlans,
  type LayerEncoding,
  type Quorum,
} from '@kofn/encoder';
import { layerOutput, outputShape, shardInput, shardOutput, type LayerGeometry } from '@kofn/graph';
import pAny from 'p-any';
import pSome from 'p-some';
import type { Connection } from './connection.js';
import type { DispatchHooks, OnLoss } from './options.js';
import type { LocalBlocks } from './recover.js';
import type { Arrival, Erasure, LayerReport } from './report.js';

/** A coded layer as deployed: what dispatch needs of it, without its weights. */
export interface DeployedLayer {
  readonly name: string;
  readonly layer: LayerGeometry;
  readonly encoding: Pick<LayerEncoding, 'code' | 'partition' | 'scales'>;
}

/** Layers that share their input, and therefore their shards. */
export interface DeployedGroup {
  readonly layers: readonly DeployedLayer[];
  readonly code: Code;
  readonly plans: DecodePlans;
  /** Shard name and worker of each block. */
  readonly shards: readonly { readonly name: string; readonly worker: number }[];
  readonly local: LocalBlocks;
}

export interface RequestContext {
  readonly request: number;
  /** Aborts when the caller cancels or the deadline passes. */
  readonly signal: AbortSignal;
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

export interface LayerAnswer {
  readonly output: Float32Tensor;
  readonly report: LayerReport;
}

/**
 * Runs `group` on `input`; one answer a layer. Throws SHAPE_MISMATCH or DTYPE_MISMATCH (input), NOT_ENOUGH_WORKERS (fewer
 * than k left and `onLoss` is 'fail'), DEADLINE_EXCEEDED or CANCELLED naming who had not answered.
 */
export function dispatch(group: DeployedGroup, input: Tensor, context: RequestContext): Promise<LayerAnswer[]> {
  return new GroupCall(group, input, context).run();
}

/** One layer's part of the call. */
interface Part {
  readonly deployed: DeployedLayer;
  readonly outputShape: readonly number[];
  /** Of each worker's block. */
  readonly replyShape: readonly number[];
  readonly decoder: ProgressiveDecoder;
}

class GroupCall {
  readonly #group: DeployedGroup;
  readonly #context: RequestContext;
  /** As a shard takes it. */
  readonly #input: Tensor;
  readonly #parts: readonly Part[];
  /** To a worker and back. */
  readonly #bytesOfCall: number;
  readonly #start: number;
  readonly #arrivals: Arrival[] = [];
  readonly #erasures: Erasure[] = [];
  /** Parity blocks that wait for late data blocks, while the systematic grace lasts. */
  readonly #held: { block: number; values: readonly Float32Array[] }[] = [];
  #isHolding: boolean;
  /** Blocks whose worker has neither answered nor failed. */
  readonly #pending = new Map<number, Promise<void>>();
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(group: DeployedGroup, input: Tensor, context: RequestContext) {
    const [first] = group.layers;
    if (input.dtype !== 'float32') {
      throw new KofnError('DTYPE_MISMATCH', `layer ${first!.name} takes float32, got ${input.dtype}`);
    }
    this.#group = group;
    this.#context = context;
    this.#start = context.clock.now();
    this.#isHolding = context.systematicGraceMs > 0;
    this.#parts = group.layers.map(deployed => partOf(deployed, group.plans, input));
    this.#input = shardInput(first!.layer, input);
    const replyFloats = this.#parts.reduce((sum, { replyShape }) => sum + elementCount(replyShape), 0);
    this.#bytesOfCall = 4 * (elementCount(this.#input.shape) + replyFloats);
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
    if (!isFiniteTensor(this.#input)) {
      // Parity of NaN or infinity says nothing about the blocks, and it is nobody's fault: compute the layer here.
      computedHere = await this.#computeHere();
    } else {
      using scope = openScope(clock, { parent: signal });
      const calls = this.#group.shards.map((_, block) => this.#callWorker(block, scope.signal));
      calls.forEach((call, block) => {
        const settled = call.catch(() => undefined); // a rejection after the answer is nobody's
        this.#pending.set(
          block,
          settled.finally(() => this.#pending.delete(block)),
        );
      });
      try {
        await this.#quorums(calls, scope.signal);
      } catch (error) {
        if (isKofnError(error)) throw error;
        computedHere = await this.#recover();
      } finally {
        // What has answered by now is in the decoders; whoever has not need not any more.
        scope.abort(new KofnError('CANCELLED', `layer ${this.#name} has its answer`));
      }
    }
    return this.#parts.map((part, index) => this.#answer(part, index, computedHere));
  }

  #answer(
    { deployed, decoder, outputShape: shape }: Part,
    index: number,
    computedHere: readonly number[],
  ): LayerAnswer {
    const { code } = this.#group;
    const decoded = decoder.finish();
    const failed = new Set(this.#erasures.map(erasure => erasure.block));
    const report: LayerReport = {
      name: deployed.name,
      code: code.name,
      k: code.k,
      r: code.r,
      ms: this.#context.clock.now() - this.#start,
      arrivals: [...this.#arrivals],
      erasures: [...this.#erasures],
      decodeSet: decoded.decodeSet,
      recovered: {
        lost: decoded.recovered.filter(block => failed.has(block)),
        late: decoded.recovered.filter(block => !failed.has(block)),
      },
      computedHere,
      errorGain: decoded.errorGain,
      bytesSent: index === 0 ? this.#bytesSent : 0,
      bytesReceived: index === 0 ? this.#bytesReceived : 0,
    };
    return { output: layerOutput(deployed.layer, shape, decoded.output), report };
  }

  get #name(): string {
    return this.#parts.map(({ deployed }) => deployed.name).join(', ');
  }

  /** Blocks are taken and completed alike in every layer: they have the same code. */
  get #decoder(): ProgressiveDecoder {
    return this.#parts[0]!.decoder;
  }

  /** Sends block `block`'s call and hands its verified reply to the decoders; records the erasure and rejects else. */
  async #callWorker(block: number, signal: AbortSignal): Promise<void> {
    const { request, clock, connections, hooks, deadlineAt } = this.#context;
    const { name, worker } = this.#group.shards[block]!;
    const connection = connections[worker]!;
    const told = { request, layer: this.#parts[0]!.deployed.name, worker };
    try {
      if (connection.takesCalls) hooks.beforeSend?.(told);
      const reply = await connection.infer(
        name,
        { x: this.#input },
        {
          signal,
          bytes: this.#bytesOfCall,
          timeoutMs: Math.max(1, deadlineAt - clock.now()),
          onWritten: bytes => {
            this.#bytesSent += bytes;
            hooks.afterWrite?.(told);
          },
        },
      );
      this.#bytesReceived += reply.bytesReceived;
      this.#arrive(block, worker, this.#verified(reply.outputs));
    } catch (error) {
      const { code, message } = KofnError.from(error);
      if (WRONG_REPLIES.includes(code)) connection.mark(message);
      if (!signal.aborted) this.#erasures.push({ block, worker, code, message });
      throw error;
    }
  }

  /** The block of each layer. Throws PROTOCOL (one is missing) or what `verifyBlock` says. */
  #verified(outputs: Tensors): Float32Array[] {
    return this.#parts.map(({ replyShape }, index) => {
      const name = shardOutput(index);
      const y = outputs[name];
      if (y === undefined) throw new KofnError('PROTOCOL', `the reply has no output ${name}`);
      const fault = verifyBlock(y, { dtype: 'float32', shape: replyShape });
      if (fault !== undefined) throw fault;
      return y.data as Float32Array;
    });
  }

  #arrive(block: number, worker: number, values: readonly Float32Array[]): void {
    if (this.#isHolding && block >= this.#group.code.k) this.#held.push({ block, values });
    else if (!this.#accept(block, values)) return;
    this.#arrivals.push({ block, worker, ms: this.#context.clock.now() - this.#start });
  }

  #accept(block: number, values: readonly Float32Array[]): boolean {
    return this.#parts.map(({ decoder }, index) => decoder.accept(block, values[index]!)).every(Boolean);
  }

  /** Waits until every quorum of the code is met; rejects with an AggregateError as soon as one cannot be. */
  async #quorums(calls: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
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
    for (const { block, values } of this.#held.splice(0)) this.#accept(block, values);
  }

  /** Fewer than k workers are left: the policy decides. Returns the blocks computed here. */
  async #recover(): Promise<number[]> {
    this.#acceptHeld();
    if (this.#context.onLoss === 'local') return this.#computeHere();
    const { k, n } = this.#group.code;
    const lost = this.#erasures.map(({ worker, message }) => `worker ${worker}: ${message}`).join('; ');
    throw new KofnError(
      'NOT_ENOUGH_WORKERS',
      `layer ${this.#name} needs ${k} of ${n} blocks and ${this.#erasures.length} are lost (${lost}). ` +
        `Restart those workers, code with more parity, or let the master compute what is missing (onLoss: 'local')`,
    );
  }

  /** Computes here what no worker can bring any more, while the others still may, until the outputs are complete. */
  async #computeHere(): Promise<number[]> {
    const { signal } = this.#context;
    const computed: number[] = [];
    while (!this.#decoder.complete) {
      const [block] = this.#decoder.missing(this.#pending.keys());
      if (block === undefined) {
        await abortable(Promise.race(this.#pending.values()), signal);
      } else {
        const outputs = await abortable(this.#group.local.run(block, this.#input), signal);
        const values = this.#parts.map((_, index) => outputs[shardOutput(index)]!.data as Float32Array);
        if (this.#accept(block, values)) computed.push(block);
      }
    }
    return computed.sort((a, b) => a - b);
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
      `${reason.message}: layer ${this.#name} had ${this.#arrivals.length} of ${this.#group.code.k} blocks (${who})`,
      { cause: reason },
    );
  }
}

function partOf(deployed: DeployedLayer, plans: DecodePlans, input: Tensor): Part {
  const { layer, encoding } = deployed;
  const shape = outputShape(layer, input.shape);
  const replyUnits = encoding.partition.groups * encoding.partition.blockUnits;
  const [batch, spatial] =
    layer.conv === undefined ? [elementCount(shape) / layer.units, []] : [shape[0]!, shape.slice(2)];
  return {
    deployed,
    outputShape: shape,
    replyShape: [batch, replyUnits, ...spatial],
    decoder: new ProgressiveDecoder({ encoding, plans, batch, inner: elementCount(spatial) }),
  };
}

async function quorumOf(quorum: Quorum, calls: readonly Promise<void>[]): Promise<void> {
  const members = quorum.members.map(block => calls[block]!);
  await (quorum.count === 1 ? pAny(members) : pSome(members, { count: quorum.count }));
}
