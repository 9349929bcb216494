/** The faults of a worker as those see it who bring them: kofn.v1.FaultControl, over any Channel. */
import type { CallOptions, Channel } from '../protocol/channel.js';
import {
  actionFrom,
  actionMessage,
  resolveFaults,
  settingsFrom,
  settingsMessage,
  type FaultAction,
  type FaultSettings,
  type FaultStatus,
} from './faults.js';
import { codecs, METHODS } from '../protocol/protos.js';

/** Each method throws PERMISSION_DENIED when the worker was not started with --allow-faults, else what the channel throws. */
export class FaultControlClient {
  readonly #channel: Channel;

  /** The channel stays its owner's. */
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Replaces all settings, begins the counters and draws anew, and disarms. Throws INVALID_ARGUMENT: nothing has changed. */
  async set(settings: FaultSettings, options: CallOptions = {}): Promise<void> {
    const request = codecs.faultSettings.encode(settingsMessage(resolveFaults(settings)));
    await this.#channel.unary(METHODS.setFaults, request, options);
  }

  /** Resolves when the worker has said that it will; for 'kill' and 'pause' that is just before it does. Throws INVALID_ARGUMENT. */
  async act(action: FaultAction, options: CallOptions = {}): Promise<void> {
    await this.#channel.unary(METHODS.act, codecs.faultAction.encode(actionMessage(action)), options);
  }

  async status(options: CallOptions = {}): Promise<FaultStatus> {
    const reply = await this.#channel.unary(METHODS.faultStatus, codecs.empty.encode({}), options);
    const status = codecs.faultStatus.decode(reply);
    return {
      received: Number(status.received),
      run: Number(status.run),
      stalled: Number(status.stalled),
      dropped: Number(status.dropped),
      corrupted: Number(status.corrupted),
      busyMs: status.busy_ms,
      stalledMs: status.stalled_ms,
      cpuMs: status.cpu_ms,
      rssBytes: Number(status.rss_bytes),
      settings: settingsFrom(status.settings!),
      armed: status.armed ? actionFrom(status.armed) : undefined,
    };
  }
}
