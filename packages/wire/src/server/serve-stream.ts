/**
 * The server's end of one ModelStreamInfer: many requests side by side, each answered once, in any order. The other end is
 * infer-stream.ts; what becomes of one request is its server's.
 *
 * Invariants
 * 1. Every frame that is not a cancel frame gets one reply with its id, an error reply when it is malformed; only a server that
 *    answers with nothing takes it away.
 * 2. A cancel frame for an id that is not pending is ignored: its reply has crossed it on the way. So is one that was damaged,
 *    whose id may be another request's.
 * 3. When the peer is gone, nothing of it that has not started runs. On shutdown what was taken is answered, what comes
 *    meanwhile is refused, then the stream ends.
 * 4. A request that ends in a checksum and does not fit it is refused before anything of it is believed; the reply to one that
 *    fits has its own, begun from that one.
 */
import { KofnError, openScope, type Clock, type Scope, type Signal } from '@kofn/core';
import type { MessageParts, ServerDuplex } from '../protocol/channel.js';
import { checksum } from '../protocol/checksum.js';
import { readRequest, replyFrame } from '../protocol/frames.js';
import type { InferParameter, InferRequestMessage } from '../protocol/protos.js';

/** A peer that does not read its replies is not read from beyond this many. */
const MAX_UNSENT_REPLIES = 256;

export interface StreamServing {
  readonly clock: Clock;
  /** What refuses while it shuts down: "this worker". */
  readonly who: string;
  /** Aborts when the server takes nothing more. */
  readonly shutdown: Signal;
  /**
   * The reply to `request`, as a frame (`replyFrame` with `crc`, the checksum of the request where it has one); undefined for none at
   * all. `signal` aborts when the request was cancelled or its peer is gone. Throws what the peer is told instead.
   */
  answer(
    request: InferRequestMessage,
    call: { readonly signal: Signal; readonly crc: number | undefined },
  ): Promise<MessageParts | undefined>;
}

/** Resolves when the peer has half-closed or the server has shut down, and all that was taken is answered. */
export async function serveStream(stream: ServerDuplex, serving: StreamServing): Promise<void> {
  const { clock, shutdown, who } = serving;
  const requests = new StreamRequests(stream, serving);
  using stop = openScope(clock, { parent: stream.signal });
  const onShutdown = () =>
    void requests.end().then(() => stop.abort(new KofnError('UNAVAILABLE', `${who} is shutting down`)));
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

/** The reply that says of a request what went wrong. */
export function errorFrame(
  { id, model_name }: Pick<InferRequestMessage, 'id' | 'model_name'>,
  error: unknown,
  parameters: Readonly<Record<string, InferParameter>> = {},
): MessageParts {
  const { code, message } = KofnError.from(error);
  const response = { id, model_name, parameters: { ...parameters, kofn_code: { string_param: code } } };
  return replyFrame({ error_message: message, infer_response: response });
}

class StreamRequests {
  readonly #stream: ServerDuplex;
  readonly #serving: StreamServing;
  readonly #pending = new Map<string, Scope>();
  readonly #answers = new Set<Promise<void>>();

  constructor(stream: ServerDuplex, serving: StreamServing) {
    this.#stream = stream;
    this.#serving = serving;
  }

  /** Takes one frame; when it returns a promise, the next may be read once that resolves. */
  accept(frame: Uint8Array): Promise<void> | undefined {
    let request: InferRequestMessage;
    try {
      request = readRequest(frame);
    } catch (error) {
      return this.#refuse({ id: '', model_name: '' }, error);
    }
    const { id } = request;
    const crc = checksum.in(frame);
    const isDamaged = crc !== undefined && !checksum.fits(frame);
    if (request.parameters['kofn_cancel']?.bool_param === true) {
      if (isDamaged) return undefined;
      this.#pending.get(id)?.abort(new KofnError('CANCELLED', `request ${id} was cancelled by its caller`));
      return undefined;
    }
    if (isDamaged) return this.#refuse(request, this.#damaged());
    if (id !== '' && this.#pending.has(id)) {
      const error = new KofnError('INVALID_ARGUMENT', `request id "${id}" is taken by one that is not answered yet`);
      return this.#refuse(request, error);
    }
    return this.#keep(this.#answer(request, crc));
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

  #refuse(request: Pick<InferRequestMessage, 'id' | 'model_name'>, error: unknown): Promise<void> | undefined {
    return this.#keep(this.#stream.send(errorFrame(request, error)));
  }

  async #answer(request: InferRequestMessage, crc: number | undefined): Promise<void> {
    const { id } = request;
    using scope = openScope(this.#serving.clock, { parent: this.#stream.signal });
    if (id !== '') this.#pending.set(id, scope);
    try {
      const frame = await this.#serving.answer(request, { signal: scope.signal, crc });
      if (frame !== undefined) await this.#stream.send(frame);
    } catch (error) {
      await this.#stream.send(errorFrame(request, error));
    } finally {
      this.#pending.delete(id);
    }
  }

  #damaged(): KofnError {
    const advice = `check the link to ${this.#serving.who} and the memory of both machines`;
    return new KofnError('DATA_LOSS', `the request was damaged on its way (its checksum does not match); ${advice}`);
  }
}
