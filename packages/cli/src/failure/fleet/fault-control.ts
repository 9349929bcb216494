/**
 * The faults of one worker, local or of a real cluster, over a connection of their own: a benchmark brings them upon it beside the
 * requests, and is not held up by those.
 */
import { systemClock, type Clock } from '@kofn/core';
import {
  connectChannel,
  FaultControlClient,
  parseWorker,
  type Channel,
  type FaultAction,
  type FaultSettings,
  type FaultStatus,
} from '@kofn/wire';

export type { FaultAction, FaultSettings, FaultStatus } from '@kofn/wire';

/** Longer than a worker whose cores are all taken needs for an answer. */
const DEADLINE_MS = 5_000;

export class FaultControl implements AsyncDisposable {
  readonly address: string;
  readonly #channel: Channel;
  readonly #client: FaultControlClient;
  readonly #deadlineMs: number;

  private constructor(channel: Channel, deadlineMs: number) {
    this.address = channel.address;
    this.#channel = channel;
    this.#client = new FaultControlClient(channel);
    this.#deadlineMs = deadlineMs;
  }

  /**
   * To the worker at `address`. Each call, this among them, ends within `deadlineMs` (default 5,000): a worker that stands still answers later. Throws
   * INVALID_ARGUMENT (the address), PERMISSION_DENIED (the worker was not started with --allow-faults), UNAVAILABLE, DEADLINE_EXCEEDED, PROTOCOL.
   */
  static async connect(
    address: string,
    { deadlineMs = DEADLINE_MS, clock = systemClock }: { deadlineMs?: number; clock?: Clock } = {},
  ): Promise<FaultControl> {
    const control = new FaultControl(connectChannel(parseWorker('address', address), { clock }), deadlineMs);
    try {
      await control.status();
      return control;
    } catch (error) {
      await control.close();
      throw error;
    }
  }

  /** Replaces all settings, begins counters and draws anew, and disarms; `{}` is a sound worker. Throws INVALID_ARGUMENT, UNAVAILABLE. */
  set(settings: FaultSettings): Promise<void> {
    return this.#client.set(settings, { deadlineMs: this.#deadlineMs });
  }

  /** Resolves just before a 'kill' or 'pause' happens, or when one is armed for the next inference. Throws as `set`. */
  act(action: FaultAction): Promise<void> {
    return this.#client.act(action, { deadlineMs: this.#deadlineMs });
  }

  /** What was counted since `set`. Throws UNAVAILABLE. */
  status(): Promise<FaultStatus> {
    return this.#client.status({ deadlineMs: this.#deadlineMs });
  }

  async close(): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
