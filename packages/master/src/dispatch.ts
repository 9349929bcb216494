/**
 * One coded layer of one request: its input to n workers, the first k verified arrivals into the decoder, the rest
 * cancelled. Called by run.ts; recover.ts supplies what fewer than k workers cannot.
 *
 * Invariants
 * 1. Every call ends with this function: answered, failed, or cancelled by the scope. Nothing outlives it.
 * 2. A block enters the decoder only after `verifyBlock`; whatever else a worker answers is an erasure.
 * 3. Nothing but the decode set shapes the output: an arrival after the last one needed is not used.
 * 4. The report is taken at the moment of decoding, so our own cancellations never look like failures.
 */
import {
  abortable,
  abortReason,
  elementCount,
  float32,
  isFiniteTensor,
  isKofnError,
  KofnError,
  openScope,
  sleep,
  type Clock,
  type Float32Tensor,
  type Tensor,
} from '@kofn/core';
import { ProgressiveDecoder, verifyBlock, type DecodePlans, type LayerEncoding, type Quorum } from '@kofn/encoder';
import { outputShape, type LinearLayer } from '@kofn/graph';
import pAny from 'p-any';
import pSome from 'p-some';
import type { Connection } from './connection.js';
import type { DispatchHooks, OnLoss } from './options.js';
import type { LocalBlocks } from './recover.js';
import type { Arrival, Erasure, LayerReport } from './report.js';

/** A coded layer as deployed: what dispatch needs of it, without its weights. */
export interface DeployedLayer {
  readonly name: string;
  readonly layer: Omit<LinearLayer, 'weights' | 'bias'>;
  readonly encoding: Pick<LayerEncoding, 'code' | 'partition' | 'scales'>;
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

/**
 * Runs `deployed` on `input`. Throws SHAPE_MISMATCH or DTYPE_MISMATCH (input), NOT_ENOUGH_WORKERS (fewer than k left
 * and `onLoss` is 'fail'), DEADLINE_EXCEEDED or CANCELLED naming who had not answered.
 */
export async function dispatch(
  deployed: DeployedLayer,
  input: Tensor,
  context: RequestContext,
): Promise<{ output: Float32Tensor; report: LayerReport }> {
  const call = new LayerCall(deployed, input, context);
  return call.run();
}

class LayerCall {
  readonly #deployed: DeployedLayer;
  readonly #context: RequestContext;
  readonly #input: Tensor;
  readonly #shape: number[];
  readonly #replyShape: number[];
  readonly #decoder: ProgressiveDecoder;
  readonly #start: number;
  readonly #arrivals: Arrival[] = [];
  readonly #erasures: Erasure[] = [];
  /** Parity blocks that wait for late data blocks, while the systematic grace lasts. */
  readonly #held: { block: number; data: Float32Array }[] = [];
  #isHolding: boolean;
  /** Blocks whose worker has neither answered nor failed. */
  readonly #pending = new Map<number, Promise<void>>();
  #bytesSent = 0;
  #bytesReceived = 0;

  constructor(deployed: DeployedLayer, input: Tensor, context: RequestContext) {
    const { layer, encoding } = deployed;
    if (input.dtype !== 'float32') {
      throw new KofnError('DTYPE_MISMATCH', `layer ${deployed.name} takes float32, got ${input.dtype}`);
    }
    this.#deployed = deployed;
    this.#context = context;
    this.#start = context.clock.now();
    this.#isHolding = context.systematicGraceMs > 0;
    this.#shape = outputShape(layer, input.shape);
    const replyUnits = encoding.partition.groups * encoding.partition.blockUnits;
    if (layer.conv === undefined) {
      const rows = elementCount(this.#shape) / layer.units;
      this.#input = { ...input, shape: [rows, layer.fanIn] };
      this.#replyShape = [rows, replyUnits];
      this.#decoder = new ProgressiveDecoder({ encoding, plans: deployed.plans, batch: rows, inner: 1 });
    } else {
      this.#input = input;
      const [batch = 0, , ...spatial] = this.#shape;
      this.#replyShape = [batch, replyUnits, ...spatial];
      this.#decoder = new ProgressiveDecoder({ encoding, plans: deployed.plans, batch, inner: elementCount(spatial) });
    }
  }

  async run(): Promise<{ output: Float32Tensor; report: LayerReport }> {
    const { signal } = this.#context;
    try {
      return await this.#run();
    } catch (error) {
      throw signal.aborted ? this.#unanswered(abortReason(signal)) : error;
    }
  }

  async #run(): Promise<{ output: Float32Tensor; report: LayerReport }> {
    const { name, encoding } = this.#deployed;
    const { clock, signal } = this.#context;
    let computedHere: number[] = [];
    if (!isFiniteTensor(this.#input)) {
      // Parity of NaN or infinity says nothing about the blocks, and it is nobody's fault: compute the layer here.
      computedHere = await this.#computeHere();
    } else {
      using scope = openScope(clock, { parent: signal });
      const calls = this.#deployed.shards.map((_, block) => this.#callWorker(block, scope.signal));
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
        // What has answered by now is in the decoder; whoever has not need not any more.
        scope.abort(new KofnError('CANCELLED', `layer ${name} has its answer`));
      }
    }
    const decoded = this.#decoder.finish();
    const failed = new Set(this.#erasures.map(erasure => erasure.block));
    const report: LayerReport = {
      name,
      code: encoding.code.name,
      k: encoding.code.k,
      r: encoding.code.r,
      ms: clock.now() - this.#start,
      arrivals: [...this.#arrivals],
      erasures: [...this.#erasures],
      decodeSet: decoded.decodeSet,
      recovered: {
        lost: decoded.recovered.filter(block => failed.has(block)),
        late: decoded.recovered.filter(block => !failed.has(block)),
      },
      computedHere,
      errorGain: decoded.errorGain,
      bytesSent: this.#bytesSent,
      bytesReceived: this.#bytesReceived,
    };
    return { output: float32(this.#shape, decoded.output), report };
  }

  /** Sends block `block`'s call and hands its verified reply to the decoder; records the erasure and rejects else. */
  async #callWorker(block: number, signal: AbortSignal): Promise<void> {
    const { request, clock, connections, hooks, deadlineAt } = this.#context;
    const { name, worker } = this.#deployed.shards[block]!;
    const connection = connections[worker]!;
    const told = { request, layer: this.#deployed.name, worker };
    try {
      if (connection.state === 'ready') hooks.beforeSend?.(told);
      const reply = await connection.infer(
        name,
        { x: this.#input },
        {
          signal,
          timeoutMs: Math.max(1, deadlineAt - clock.now()),
          onWritten: bytes => {
            this.#bytesSent += bytes;
            hooks.afterWrite?.(told);
          },
        },
      );
      this.#bytesReceived += reply.bytesReceived;
      const y = reply.outputs['y'];
      if (y === undefined) throw new KofnError('PROTOCOL', 'the reply has no output y');
      const fault = verifyBlock(y, { dtype: 'float32', shape: this.#replyShape });
      if (fault !== undefined) throw fault;
      this.#arrive(block, worker, y.data as Float32Array);
    } catch (error) {
      const { code, message } = KofnError.from(error);
      if (!signal.aborted) this.#erasures.push({ block, worker, code, message });
      throw error;
    }
  }

  #arrive(block: number, worker: number, data: Float32Array): void {
    const { code } = this.#deployed.encoding;
    if (this.#isHolding && block >= code.k) this.#held.push({ block, data });
    else if (!this.#decoder.accept(block, data)) return;
    this.#arrivals.push({ block, worker, ms: this.#context.clock.now() - this.#start });
  }

  /** Waits until every quorum of the code is met; rejects with an AggregateError as soon as one cannot be. */
  async #quorums(calls: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
    const { code } = this.#deployed.encoding;
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
    for (const { block, data } of this.#held.splice(0)) this.#decoder.accept(block, data);
  }

  /** Fewer than k workers are left: the policy decides. Returns the blocks computed here. */
  async #recover(): Promise<number[]> {
    this.#acceptHeld();
    if (this.#context.onLoss === 'local') return this.#computeHere();
    const { name, encoding } = this.#deployed;
    const lost = this.#erasures.map(({ worker, message }) => `worker ${worker}: ${message}`).join('; ');
    throw new KofnError(
      'NOT_ENOUGH_WORKERS',
      `layer ${name} needs ${encoding.code.k} of ${encoding.code.n} blocks and ${this.#erasures.length} are lost (${lost}). ` +
        `Restart those workers, code with more parity, or let the master compute what is missing (onLoss: 'local')`,
    );
  }

  /** Computes here what no worker can bring any more, while the others still may, until the output is complete. */
  async #computeHere(): Promise<number[]> {
    const { signal } = this.#context;
    const computed: number[] = [];
    while (!this.#decoder.complete) {
      const [block] = this.#decoder.missing(this.#pending.keys());
      if (block === undefined) {
        await abortable(Promise.race(this.#pending.values()), signal);
      } else {
        const data = await abortable(this.#deployed.local.run(block, this.#input), signal);
        if (this.#decoder.accept(block, data)) computed.push(block);
      }
    }
    return computed.sort((a, b) => a - b);
  }

  /** `reason` (a deadline, a cancellation) with the layer and the workers that had not answered. */
  #unanswered(reason: KofnError): KofnError {
    if (reason.code !== 'DEADLINE_EXCEEDED') return reason;
    const settled = new Set([...this.#arrivals, ...this.#erasures].map(({ block }) => block));
    const silent = this.#deployed.shards.filter((_, block) => !settled.has(block)).map(({ worker }) => worker);
    const failed = this.#erasures.map(({ worker, code }) => `worker ${worker} failed (${code})`);
    const who = [...(silent.length > 0 ? [`no answer from worker ${silent.join(', ')}`] : []), ...failed].join('; ');
    const { code } = this.#deployed.encoding;
    return new KofnError(
      'DEADLINE_EXCEEDED',
      `${reason.message}: layer ${this.#deployed.name} had ${this.#arrivals.length} of ${code.k} blocks (${who})`,
      { cause: reason },
    );
  }
}

async function quorumOf(quorum: Quorum, calls: readonly Promise<void>[]): Promise<void> {
  const members = quorum.members.map(block => calls[block]!);
  await (quorum.count === 1 ? pAny(members) : pSome(members, { count: quorum.count }));
}
