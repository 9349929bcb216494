/** A worker as its callers see it: every method of its protocols, over any Channel. */
import { KofnError, type Clock } from '@kofn/core';
import type { CallOptions, Channel } from './channel.js';
import { InferStream, type InferOptions, type InferReply, type InferRequest } from './infer-stream.js';
import { codecs, EXTENSIONS, METHODS, PROTOCOL_VERSION } from './protos.js';
import { putMessages, type ShardFiles } from './shard-transfer.js';

export interface WorkerInventory {
  readonly workerId: string;
  readonly protocolVersion: number;
  readonly engine: string;
  readonly engineVersion: string;
  readonly memoryLimitBytes: number;
  readonly diskLimitBytes: number;
  readonly diskUsedBytes: number;
  readonly cores: number;
  readonly shards: readonly { readonly name: string; readonly bytes: number }[];
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

  private constructor(channel: Channel, metadata: ServerMetadata) {
    this.#channel = channel;
    this.metadata = metadata;
    this.#stream = new InferStream(channel, { canCancel: metadata.extensions.includes(EXTENSIONS.cancel) });
  }

  /** Asks the other end what it is. Throws PROTOCOL when it is no kofn worker, else what the channel throws. */
  static async open(channel: Channel, options: CallOptions & { clock?: Clock } = {}): Promise<WorkerClient> {
    const { signal, deadlineMs } = options;
    const reply = await channel.unary(METHODS.serverMetadata, NOTHING, { signal, deadlineMs });
    const metadata = codecs.serverMetadata.decode(reply);
    if (!metadata.extensions.includes(EXTENSIONS.shardStore)) {
      const what = metadata.name === '' ? 'another kind of server' : `"${metadata.name}"`;
      throw new KofnError('PROTOCOL', `at ${channel.address} answers ${what}, not a kofn worker`);
    }
    return new WorkerClient(channel, metadata);
  }

  /** Replies that came after their request was over. */
  get lateReplies(): number {
    return this.#stream.lateReplies;
  }

  async live(options: CallOptions = {}): Promise<boolean> {
    return codecs.serverLive.decode(await this.#channel.unary(METHODS.serverLive, NOTHING, options)).live;
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
      protocolVersion: reply.protocol_version,
      engine: reply.engine,
      engineVersion: reply.engine_version,
      memoryLimitBytes: Number(reply.memory_limit_bytes),
      diskLimitBytes: Number(reply.disk_limit_bytes),
      diskUsedBytes: Number(reply.disk_used_bytes),
      cores: reply.cores,
      shards: reply.shards.map(({ name, bytes }) => ({ name, bytes: Number(bytes) })),
    };
  }

  /**
   * Puts a shard; a worker that has it already answers at once. Throws RESOURCE_EXHAUSTED (disk or message limit),
   * STORAGE, DATA_LOSS (it did not arrive as it was sent).
   */
  async put(
    shard: ShardFiles,
    { onProgress, ...options }: CallOptions & { onProgress?: (sentBytes: number) => void } = {},
  ): Promise<{ present: boolean }> {
    const reply = await this.#channel.clientStream(METHODS.put, putMessages(shard, onProgress), options);
    return codecs.putResponse.decode(reply);
  }

  /** Removes shards; returns the names that were there. */
  async remove(names: readonly string[], options: CallOptions = {}): Promise<string[]> {
    const request = codecs.removeRequest.encode({ names: [...names] });
    return codecs.removeResponse.decode(await this.#channel.unary(METHODS.remove, request, options)).removed;
  }

  /** Runs a model that the worker holds, over one stream that all calls share. Throws as `InferStream.infer`. */
  infer(request: InferRequest, options: InferOptions = {}): Promise<InferReply> {
    return this.#stream.infer(request, options);
  }

  /** Ends the stream; the channel stays its owner's. */
  close(): Promise<void> {
    this.#stream.close();
    return Promise.resolve();
  }
}
