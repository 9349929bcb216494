/**
 * One worker as the master reaches it: its channel, what it said of itself, and whether the link still stands. Beside
 * it: fleet.ts (all of them), dispatch.ts (calls), placement.ts (shards).
 *
 * Invariants
 * 1. `state` goes from 'ready' to 'lost' once, when the link breaks; calls to a lost worker fail at once, UNAVAILABLE.
 * 2. After dispose nothing of this worker is pending.
 */
import { KofnError, openScope, type Clock, type Tensors } from '@kofn/core';
import { WorkerClient, type Channel, type WorkerInventory } from '@kofn/wire';

export interface InferCall {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** The frame has been handed to the operating system; its size. */
  readonly onWritten?: ((bytes: number) => void) | undefined;
}

export interface InferResult {
  readonly outputs: Tensors;
  readonly bytesReceived: number;
}

/** Makes the channel to a worker: gRPC, or a simulator's. */
export type OpenChannel = (address: string, options: { maxMessageBytes: number; clock: Clock }) => Channel;

export class Connection implements AsyncDisposable {
  readonly index: number;
  readonly address: string;
  readonly inventory: WorkerInventory;
  readonly client: WorkerClient;
  /** Names of the shards that the worker holds, as far as the master knows. */
  readonly shards: Set<string>;
  readonly #channel: Channel;
  #lost: KofnError | undefined;
  #onLost: (() => void) | undefined;

  private constructor(index: number, channel: Channel, client: WorkerClient, inventory: WorkerInventory) {
    this.index = index;
    this.address = channel.address;
    this.inventory = inventory;
    this.client = client;
    this.shards = new Set(inventory.shards.map(shard => shard.name));
    this.#channel = channel;
    channel.onBroken(error => {
      if (this.#lost !== undefined) return;
      this.#lost = error;
      this.#onLost?.();
    });
  }

  /** Throws UNAVAILABLE when nobody answers at `address`, PROTOCOL when it is not a kofn worker. */
  static async open(
    index: number,
    address: string,
    options: {
      clock: Clock;
      deadlineMs: number;
      maxMessageBytes: number;
      signal: AbortSignal | undefined;
      openChannel: OpenChannel;
    },
  ): Promise<Connection> {
    const { clock, deadlineMs, maxMessageBytes, openChannel } = options;
    using scope = openScope(clock, { parent: options.signal, deadlineMs, what: `connection to worker ${address}` });
    const channel = openChannel(address, { maxMessageBytes, clock });
    try {
      await channel.ready({ signal: scope.signal, deadlineMs });
      const client = await WorkerClient.open(channel, { clock, signal: scope.signal });
      const inventory = await client.inventory({ signal: scope.signal });
      return new Connection(index, channel, client, inventory);
    } catch (error) {
      await channel[Symbol.asyncDispose]();
      const cause = KofnError.from(error, 'UNAVAILABLE');
      if (cause.code === 'CANCELLED') throw cause;
      const code = cause.code === 'DEADLINE_EXCEEDED' ? 'UNAVAILABLE' : cause.code;
      throw new KofnError(
        code,
        `worker ${index} (${address}): ${cause.message}. Is \`kofn worker --listen ${address}\` running there?`,
        { cause },
      );
    }
  }

  /** Calls `listener` once, when the worker is lost; at once when it is lost already. */
  onLost(listener: () => void): void {
    this.#onLost = listener;
    if (this.#lost !== undefined) listener();
  }

  get state(): 'ready' | 'lost' {
    return this.#lost === undefined ? 'ready' : 'lost';
  }

  /** Runs shard `name` there. Throws UNAVAILABLE at once when the worker is lost, else what the worker answered. */
  async infer(name: string, inputs: Tensors, call: InferCall): Promise<InferResult> {
    if (this.#lost !== undefined) {
      throw new KofnError('UNAVAILABLE', `worker ${this.index} (${this.address}) is lost: ${this.#lost.message}`);
    }
    const { signal, timeoutMs, onWritten } = call;
    return this.client.infer({ model: name, inputs, timeoutMs }, { signal, onWritten });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lost ??= new KofnError('CANCELLED', 'the cluster is closed');
    await this.client.close();
    await this.#channel[Symbol.asyncDispose]();
  }
}
