/** A worker as its callers see it: every method of its protocols, over any Channel. */
import { KofnError, type Signal } from '@kofn/core';
import type { ShardBlock } from '../protocol/block.js';
import type { CallOptions, Channel } from '../protocol/channel.js';
import { InferStream, type InferOptions, type InferReply, type InferRequest } from './infer-stream.js';
import { checkOwner, type Owner } from '../protocol/owner.js';
import { codecs, EXTENSIONS, METHODS, PROTOCOL_VERSION } from '../protocol/protos.js';
import { putMessages, type ShardSource } from './shard-transfer.js';

export interface WorkerInventory {
  readonly workerId: string;
  /** Of its process, drawn when that started; empty when it says none. */
  readonly processId: string;
  readonly protocolVersion: number;
  readonly engine: string;
  readonly engineVersion: string;
  readonly memoryLimitBytes: number;
  /** What the shards that are open now take of it: each its own bytes and `sessionBytes`. */
  readonly memoryUsedBytes: number;
  readonly sessionBytes: number;
  readonly diskLimitBytes: number;
  readonly diskUsedBytes: number;
  readonly cores: number;
  readonly shards: readonly InventoryShard[];
  readonly recent: RecentWork;
  /** What happened to it lately, the oldest first. */
  readonly events: readonly { readonly ageMs: number; readonly text: string }[];
}

export interface InventoryShard {
  readonly name: string;
  readonly bytes: number;
  readonly owners: readonly Owner[];
  /** What it is to its owners, as far as they said so. */
  readonly uses: readonly { readonly owner: Owner; readonly block: ShardBlock }[];
}

/**
 * What a worker ran in the last five to ten minutes of the inferences that said how many multiply-accumulates they took: how
 * many, and their multiply-accumulates and time in the engine together.
 */
export interface RecentWork {
  readonly runs: number;
  readonly macs: number;
  readonly engineMs: number;
}

export interface ServerMetadata {
  readonly name: string;
  readonly version: string;
  readonly extensions: readonly string[];
}

const NOTHING = codecs.empty.encode({});

export class WorkerClient {
  readonly metadata: ServerMetadata;
  readonly #channel: Channel;
  readonly #stream: InferStream;

  private constructor(channel: Channel, metadata: ServerMetadata, maxInFlight: number | undefined) {
    this.#channel = channel;
    this.metadata = metadata;
    this.#stream = new InferStream(channel, {
      canCancel: metadata.extensions.includes(EXTENSIONS.cancel),
      hasChecksums: metadata.extensions.includes(EXTENSIONS.checksum),
      maxInFlight,
    });
  }

  /**
   * Asks the other end what it is; with more than `maxInFlight` inferences under way more are refused. Throws PROTOCOL when
   * it is no kofn worker, else what the channel throws.
   */
  static async open(channel: Channel, options: CallOptions & { maxInFlight?: number } = {}): Promise<WorkerClient> {
    const { signal, deadlineMs, maxInFlight } = options;
    const reply = await channel.unary(METHODS.serverMetadata, NOTHING, { signal, deadlineMs });
    const metadata = codecs.serverMetadata.decode(reply);
    if (!metadata.extensions.includes(EXTENSIONS.shardStore)) {
      const what = metadata.name === '' ? 'another kind of server' : `"${metadata.name}"`;
      throw new KofnError('PROTOCOL', `at ${channel.address} answers ${what}, not a kofn worker`);
    }
    return new WorkerClient(channel, metadata, maxInFlight);
  }

  /** Replies that came after their request was over. */
  get lateReplies(): number {
    return this.#stream.lateReplies;
  }

  /** As `InferStream.abandonedBytes`. */
  get abandonedBytes(): number {
    return this.#stream.abandonedBytes;
  }

  /** Whether an inference would be refused now. */
  get isFull(): boolean {
    return this.#stream.isFull;
  }

  /** Resolves when that may have changed. */
  room(signal?: Signal): Promise<void> {
    return this.#stream.room(signal);
  }

  async live(options: CallOptions = {}): Promise<boolean> {
    return codecs.serverLive.decode(await this.#channel.unary(METHODS.serverLive, NOTHING, options)).live;
  }

  /** Whether it takes requests, and if not whether it is at least there to stay (a worker that drains is not). */
  async health(options: CallOptions = {}): Promise<{ ready: boolean; live: boolean }> {
    const { ready } = codecs.serverReady.decode(await this.#channel.unary(METHODS.serverReady, NOTHING, options));
    return { ready, live: ready || (await this.live(options)) };
  }

  /** Throws PROTOCOL when it speaks another version of kofn's protocol. */
  async inventory(options: CallOptions = {}): Promise<WorkerInventory> {
    const reply = codecs.inventory.decode(await this.#channel.unary(METHODS.inventory, NOTHING, options));
    if (reply.protocol_version !== PROTOCOL_VERSION) {
      throw new KofnError(
        'PROTOCOL',
        `${this.#channel.address} speaks version ${reply.protocol_version} of the protocol, this kofn speaks ` +
          `${PROTOCOL_VERSION}; install the same kofn on both`,
      );
    }
    return {
      workerId: reply.worker_id,
      processId: reply.process_id,
      protocolVersion: reply.protocol_version,
      engine: reply.engine,
      engineVersion: reply.engine_version,
      memoryLimitBytes: Number(reply.memory_limit_bytes),
      memoryUsedBytes: Number(reply.memory_used_bytes),
      sessionBytes: Number(reply.session_bytes),
      diskLimitBytes: Number(reply.disk_limit_bytes),
      diskUsedBytes: Number(reply.disk_used_bytes),
      cores: reply.cores,
      shards: reply.shards.map(({ name, bytes, owners, uses }) => ({
        name,
        bytes: Number(bytes),
        owners,
        uses: uses.flatMap(({ owner, block }) => (owner !== null && block !== null ? [{ owner, block }] : [])),
      })),
      recent: {
        runs: Number(reply.recent?.runs ?? 0),
        macs: Number(reply.recent?.macs ?? 0),
        engineMs: reply.recent?.engine_ms ?? 0,
      },
      events: reply.events.map(({ age_ms: ageMs, text }) => ({ ageMs, text })),
    };
  }

  /**
   * Puts a shard and claims it for `owner`; a worker that has it already answers at once. Without an owner it is held
   * for one lease. Throws INVALID_ARGUMENT (the owner), RESOURCE_EXHAUSTED (disk, message or owners a shard), STORAGE,
   * DATA_LOSS (it did not arrive as it was sent).
   */
  async put(
    shard: ShardSource,
    {
      owner,
      onProgress,
      ...options
    }: CallOptions & { owner?: Owner | undefined; onProgress?: ((sentBytes: number) => void) | undefined } = {},
  ): Promise<{ present: boolean }> {
    if (owner !== undefined) checkOwner(owner);
    const messages = putMessages(shard, { owner, onProgress });
    return codecs.putResponse.decode(await this.#channel.clientStream(METHODS.put, messages, options));
  }

  /**
   * Claims shards for `owner`, or renews its leases on them, and says that each is a `block`; returns the names that the worker does not hold. Throws
   * INVALID_ARGUMENT (the owner, or too many names), RESOURCE_EXHAUSTED (owners a shard, or disk), STORAGE; what was
   * claimed before the failure stays claimed.
   */
  async claim(
    names: readonly string[],
    owner: Owner,
    { block, ...options }: CallOptions & { block?: ShardBlock | undefined } = {},
  ): Promise<string[]> {
    const request = codecs.claimRequest.encode({ names: [...names], owner: checkOwner(owner), block: block ?? null });
    return codecs.claimResponse.decode(await this.#channel.unary(METHODS.claim, request, options)).missing;
  }

  /**
   * Drops the claims of `owner` on `names`, on all that it claims when `names` is empty; without an owner the shards go
   * whoever claims them. Returns the names whose bytes went. Throws INVALID_ARGUMENT (the owner, or too many names), and
   * STORAGE or RESOURCE_EXHAUSTED (disk) after it did what could be done.
   */
  async remove(
    names: readonly string[],
    { owner, ...options }: CallOptions & { owner?: Owner | undefined } = {},
  ): Promise<string[]> {
    const request = { names: [...names], owner: owner === undefined ? null : checkOwner(owner) };
    const reply = await this.#channel.unary(METHODS.remove, codecs.removeRequest.encode(request), options);
    return codecs.removeResponse.decode(reply).removed;
  }

  /** Runs a model that the worker holds, over one stream that all calls share. Throws as `InferStream.infer`. */
  infer(request: InferRequest, options: InferOptions = {}): Promise<InferReply> {
    return this.#stream.infer(request, options);
  }

  /** Gives up every inference under way: each throws `reason`, and is cancelled there. */
  abandon(reason: KofnError): void {
    this.#stream.abandon(reason);
  }

  /** Ends the stream; the channel stays its owner's. */
  close(): Promise<void> {
    this.#stream.close();
    return Promise.resolve();
  }
}
