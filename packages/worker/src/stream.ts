/**
 * One ModelStreamInfer: many requests side by side, each answered once, in any order. The other end is wire's
 * infer-stream.ts; one request's way is inference.ts.
 *
 * Invariants
 * 1. Every frame that is not a cancel frame gets one reply with its id, an error reply when it is malformed. Only a fault that was asked
 *    for (faults.ts) takes it away.
 * 2. A cancel frame for an id that is not pending is ignored: its reply has crossed it on the way. So is one that was damaged,
 *    whose id may be another request's.
 * 4. A request that ends in a checksum and does not fit it is refused before anything of it is believed; the reply to one that
 *    fits has its own, begun from that one, and how long it took here.
 * 3. When the peer is gone, nothing of it that has not started runs. On shutdown what was taken is answered, what comes
 *    meanwhile is refused, then the stream ends.
 */
import { abortReason, KofnError, openScope, type Scope, type Signal } from '@kofn/core';
import {
  checksum,
  readRequest,
  replyFrame,
  timesParameters,
  type InferParameter,
  type InferRequestMessage,
  type ServerDuplex,
} from '@kofn/wire';
import { asComputed, asSent, isLost, type Fate } from './faults.js';
import { infer, type InferenceParts } from './inference.js';

/** A peer that does not read its replies is not read from beyond this many. */
const MAX_UNSENT_REPLIES = 256;

export async function serveStream(stream: ServerDuplex, parts: InferenceParts, shutdown: Signal): Promise<void> {
  const requests = new StreamRequests(stream, parts);
  using stop = openScope(parts.clock, { parent: stream.signal });
  const onShutdown = () =>
    void requests.end().then(() => stop.abort(new KofnError('UNAVAILABLE', 'this worker is shutting down')));
  shutdown.addEventListener('abort', onShutdown, { once: true });
  try {
    if (shutdown.aborted) return;
    await stream.receive(frame => requests.accept(frame), stop.signal);
  } catch (error) {
    if (!shutdown.aborted || stream.signal.aborted) throw error;
  } finally {
    shutdown.removeEventListener('abort', onShutdown);
    await requests.end();
  }
}

class StreamRequests {
  readonly #stream: ServerDuplex;
  readonly #parts: InferenceParts;
  readonly #pending = new Map<string, Scope>();
  readonly #answers = new Set<Promise<void>>();

  constructor(stream: ServerDuplex, parts: InferenceParts) {
    this.#stream = stream;
    this.#parts = parts;
  }

  /** Takes one frame; when it returns a promise, the next may be read once that resolves. */
  accept(frame: Uint8Array): Promise<void> | undefined {
    let request: InferRequestMessage;
    try {
      request = readRequest(frame);
    } catch (error) {
      return this.#keep(this.#sendError('', '', error));
    }
    const { id } = request;
    const crc = checksum.in(frame);
    const isDamaged = crc !== undefined && !checksum.fits(frame);
    if (request.parameters['kofn_cancel']?.bool_param === true) {
      if (isDamaged) return undefined;
      this.#pending.get(id)?.abort(new KofnError('CANCELLED', `request ${id} was cancelled by its caller`));
      return undefined;
    }
    if (isDamaged) return this.#keep(this.#sendError(id, request.model_name, damaged()));
    if (id !== '' && this.#pending.has(id)) {
      const error = new KofnError('INVALID_ARGUMENT', `request id "${id}" is taken by one that is not answered yet`);
      return this.#keep(this.#sendError(id, request.model_name, error));
    }
    return this.#keep(this.#answer(request, crc, this.#parts.faults?.meet()));
  }

  /** Resolves when the answers that are under way now have ended. */
  async end(): Promise<void> {
    await Promise.all(this.#answers);
  }

  #keep(answer: Promise<void>): Promise<void> | undefined {
    const over = () => void this.#answers.delete(kept);
    const kept = answer.then(over, over); // no peer, no reply
    this.#answers.add(kept);
    return this.#answers.size > MAX_UNSENT_REPLIES ? Promise.race(this.#answers) : undefined;
  }

  async #answer(request: InferRequestMessage, crc: number | undefined, fate: Fate | undefined): Promise<void> {
    const { id } = request;
    const { clock } = this.#parts;
    const start = clock.now();
    using scope = openScope(clock, { parent: this.#stream.signal });
    const { signal } = scope;
    if (id !== '') this.#pending.set(id, scope);
    try {
      const { response: computed, queueMs, engineMs } = await infer(request, this.#parts, signal, fate);
      const wantsTimes = request.parameters['kofn_times']?.bool_param === true;
      const parameters = wantsTimes ? timesParameters({ queueMs, engineMs, workerMs: clock.now() - start }) : {};
      if (isLost(fate)) return;
      if (signal.aborted) {
        // Started before its cancel came: what was computed is not wanted, how long it took is.
        await this.#sendError(id, request.model_name, abortReason(signal), parameters);
        return;
      }
      const raw = computed.raw_output_contents ?? [];
      const response = fate === undefined ? computed : { ...computed, raw_output_contents: asComputed(raw, fate) };
      const frame = replyFrame({ infer_response: { ...response, parameters } }, crc);
      const payload = response.raw_output_contents?.at(-1);
      await this.#stream.send(fate === undefined ? frame : asSent(frame, fate, payload, crc !== undefined));
    } catch (error) {
      if (!isLost(fate)) await this.#sendError(id, request.model_name, error);
    } finally {
      this.#pending.delete(id);
    }
  }

  async #sendError(
    id: string,
    model: string,
    error: unknown,
    parameters: Readonly<Record<string, InferParameter>> = {},
  ): Promise<void> {
    const { code, message } = KofnError.from(error);
    const response = { id, model_name: model, parameters: { ...parameters, kofn_code: { string_param: code } } };
    await this.#stream.send(replyFrame({ error_message: message, infer_response: response }));
  }
}

function damaged(): KofnError {
  const advice = 'check the link to this worker and the memory of both machines';
  return new KofnError('DATA_LOSS', `the request was damaged on its way (its checksum does not match); ${advice}`);
}
