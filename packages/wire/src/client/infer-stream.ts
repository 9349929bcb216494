/**
 * Many requests over one ModelStreamInfer, told apart by id. The other end is the worker's server.ts.
 *
 * Invariants
 * 1. Every request settles: with its reply, with the signal's reason at once, or with UNAVAILABLE when the stream ends.
 * 2. A reply whose request is over is counted and dropped.
 * 3. A request is in flight until it has settled and its frame has left; beyond `maxInFlight` it is refused.
 * 4. `kofn_cancel` goes only to a peer that has the extension `kofn.cancel`.
 * 5. To a peer that has `kofn.checksum` every frame carries a checksum, and of it no outputs are taken but those that fit the
 *    request and their own: DATA_LOSS. Damage that cannot be told to be one request's ends the stream.
 */
import { abortable, abortReason, isErrorCode, KofnError, type Signal, type Tensors } from '@kofn/core';
import type { Channel, DuplexCall } from '../protocol/channel.js';
import { checksum } from '../protocol/checksum.js';
import { cancelFrame, EncodedInputs, readReply, requestFrame, timesIn, type WorkerTimes } from '../protocol/frames.js';
import { lengthOf } from '../grpc/grpc-options.js';
import { decodeTensors } from '../protocol/infer-codec.js';
import { METHODS } from '../protocol/protos.js';

export interface InferRequest {
  readonly model: string;
  readonly inputs: Tensors | EncodedInputs;
  /** The other end drops the request when it has not started within this time. */
  readonly timeoutMs?: number | undefined;
}

export interface InferOptions {
  readonly signal?: Signal | undefined;
  /** The request's frame, of so many bytes, has been handed to the operating system. */
  readonly onWritten?: ((bytes: number) => void) | undefined;
  /** It was cancelled, and ran nevertheless, for the worker had begun: how long, told when that is known. */
  readonly onLate?: ((times: WorkerTimes) => void) | undefined;
}

export interface InferReply {
  readonly outputs: Tensors;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** What the worker says of its time; a peer that is not kofn says nothing. */
  readonly times: WorkerTimes | undefined;
}

interface Pending {
  resolve(reply: InferReply): void;
  reject(error: KofnError): void;
  bytesSent: number;
  /** The checksum of the request, which its reply is tied to. */
  crc: number | undefined;
}

/** Cancelled requests whose times are waited for; of more, the oldest are forgotten. */
const MAX_LATE = 256;

export class InferStream {
  readonly #channel: Channel;
  readonly #canCancel: boolean;
  readonly #maxInFlight: number;
  readonly #hasChecksums: boolean;
  readonly #pending = new Map<string, Pending>();
  readonly #late = new Map<string, (times: WorkerTimes) => void>();
  #call: DuplexCall | undefined;
  #requests = 0;
  #closed = false;
  #lateReplies = 0;
  #inFlight = 0;
  #abandonedBytes = 0;
  /** Each waits for one more place. */
  readonly #waiting = new Set<() => void>();

  /** What the other end can do, by the extensions that it lists, and how much at once. */
  constructor(
    channel: Channel,
    options: { canCancel: boolean; hasChecksums?: boolean; maxInFlight?: number | undefined },
  ) {
    this.#channel = channel;
    this.#canCancel = options.canCancel;
    this.#hasChecksums = options.hasChecksums ?? false;
    this.#maxInFlight = options.maxInFlight ?? Infinity;
  }

  /** Replies that came after their request was over. */
  get lateReplies(): number {
    return this.#lateReplies;
  }

  /** Of frames that have not left yet, though their requests are over: whatever is sent now travels behind them. */
  get abandonedBytes(): number {
    return this.#abandonedBytes;
  }

  /** Whether a request would be refused now. */
  get isFull(): boolean {
    return this.#inFlight >= this.#maxInFlight;
  }

  /** Resolves when a request leaves its place, or the stream ends; the caller looks again. */
  async room(signal?: Signal): Promise<void> {
    let wake!: () => void;
    const left = new Promise<void>(resolve => (wake = resolve));
    this.#waiting.add(wake);
    try {
      await abortable(left, signal);
    } finally {
      this.#waiting.delete(wake);
    }
  }

  /**
   * Throws what the other end answered, DATA_LOSS (it was damaged on its way), UNAVAILABLE, RESOURCE_EXHAUSTED (it is full),
   * or the signal's reason.
   */
  infer(request: InferRequest, { signal, onWritten, onLate }: InferOptions = {}): Promise<InferReply> {
    return new Promise<InferReply>((resolve, reject) => {
      if (this.#closed) return reject(this.#closedError());
      if (signal?.aborted) return reject(abortReason(signal));
      if (this.isFull) return reject(this.#fullError());
      const id = String(++this.#requests);
      const { model, timeoutMs } = request;
      const inputs = request.inputs instanceof EncodedInputs ? request.inputs : new EncodedInputs(request.inputs);
      const { parts, crc } = requestFrame({ model, id, timeoutMs, inputs }, this.#hasChecksums);
      const bytes = lengthOf(parts);
      const call = this.#open();
      let [isOver, hasLeft] = [false, false];
      const free = () => {
        if (!isOver || !hasLeft) return;
        this.#inFlight--;
        this.#wake();
      };
      this.#inFlight++;
      const left = () => {
        hasLeft = true;
        if (isOver) this.#abandonedBytes -= bytes;
        free();
      };
      const over = () => {
        isOver = true;
        if (!hasLeft) this.#abandonedBytes += bytes;
        free();
        this.#pending.delete(id);
        signal?.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        over();
        reject(abortReason(signal));
        if (onLate !== undefined) this.#expectLate(id, onLate);
        this.#cancel(id, call);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, {
        bytesSent: bytes,
        crc,
        resolve: reply => (over(), resolve(reply)),
        reject: error => (over(), reject(error)),
      });
      call.send(parts).then(
        () => {
          left();
          onWritten?.(bytes);
        },
        (error: unknown) => {
          left();
          this.#pending.get(id)?.reject(KofnError.from(error, 'UNAVAILABLE'));
        },
      );
    });
  }

  /** Gives up every request: each rejects with `reason` and is cancelled at the other end. */
  abandon(reason: KofnError): void {
    for (const [id, pending] of [...this.#pending]) {
      pending.reject(reason);
      this.#cancel(id, this.#call);
    }
  }

  /** Ends the stream; what is pending rejects with CANCELLED. */
  close(): void {
    this.#closed = true;
    this.#end(this.#closedError());
  }

  #fullError(): KofnError {
    const text = `${this.#channel.address} has ${this.#inFlight} requests under way already; send fewer at once`;
    return new KofnError('RESOURCE_EXHAUSTED', text);
  }

  #expectLate(id: string, onLate: (times: WorkerTimes) => void): void {
    this.#late.set(id, onLate);
    if (this.#late.size > MAX_LATE) for (const oldest of this.#late.keys()) return void this.#late.delete(oldest);
  }

  /** The stream may be gone: then so is the request. */
  #cancel(id: string, call: DuplexCall | undefined): void {
    if (!this.#canCancel) return;
    call?.send(cancelFrame(id, this.#hasChecksums)).catch(() => undefined);
  }

  #closedError(): KofnError {
    return new KofnError('CANCELLED', `the stream to ${this.#channel.address} is closed`);
  }

  #open(): DuplexCall {
    if (this.#call !== undefined) return this.#call;
    const call = this.#channel.duplex(METHODS.modelStreamInfer, {
      onMessage: message => {
        if (call === this.#call) this.#onMessage(message);
      },
      onEnd: error => {
        // A stream that was given up ends later; by then another may be open.
        const ended = error ?? new KofnError('UNAVAILABLE', `${this.#channel.address} ended the stream`);
        if (call === this.#call) this.#end(ended);
      },
    });
    this.#call = call;
    return call;
  }

  #onMessage(message: Uint8Array): void {
    try {
      const { error_message: errorMessage, infer_response: response } = readReply(message);
      const id = response?.id ?? '';
      const pending = this.#pending.get(id);
      if (pending === undefined) {
        // Without an id it is about a frame that the other end could not read: any of those sent.
        if (id === '' && errorMessage !== '') throw this.#damaged('a request to', errorMessage);
        this.#lateReplies++;
        const times = timesIn(response?.parameters ?? {});
        if (times !== undefined) this.#late.get(id)?.(times);
        this.#late.delete(id);
        return;
      }
      if (errorMessage !== '') {
        const code = response?.parameters?.['kofn_code']?.string_param ?? '';
        pending.reject(new KofnError(isErrorCode(code) ? code : 'ENGINE', errorMessage));
        return;
      }
      if (pending.crc !== undefined && !checksum.fits(message, pending.crc)) {
        pending.reject(this.#damaged('a reply of', 'its checksum does not match'));
        return;
      }
      try {
        const outputs = decodeTensors(response?.outputs ?? [], response?.raw_output_contents ?? []);
        const times = timesIn(response?.parameters ?? {});
        pending.resolve({ outputs, bytesSent: pending.bytesSent, bytesReceived: message.byteLength, times });
      } catch (error) {
        pending.reject(KofnError.from(error, 'PROTOCOL'));
      }
    } catch (error) {
      // Not a reply at all: whose it was cannot be known.
      this.#end(KofnError.from(error, 'PROTOCOL'));
    }
  }

  #damaged(what: string, how: string): KofnError {
    const { address } = this.#channel;
    const advice = 'check the link and the memory of that machine';
    return new KofnError('DATA_LOSS', `${what} ${address} was damaged on its way (${how}); ${advice}`);
  }

  #end(reason: KofnError): void {
    const call = this.#call;
    this.#call = undefined;
    call?.cancel();
    for (const pending of [...this.#pending.values()]) pending.reject(reason);
    this.#late.clear();
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}
