/**
 * An engine whose runtime lives in a worker thread (thread.ts): ONNX Runtime blocks the thread that calls it, and the
 * caller's must go on answering keepalives and cancellations.
 *
 * Invariants
 * 1. Every call settles: with its answer, or with ENGINE when the thread dies, or CANCELLED when the engine is closed.
 * 2. The thread is not ended inside native code, which would abort the process: closing waits for the call under way.
 * 3. An idle engine does not keep the process alive; a call under way does.
 */
import { once } from 'node:events';
import { Worker, type ResourceLimits } from 'node:worker_threads';
import { KofnError, type Tensors } from '@kofn/core';
import { checkFeeds } from './check-feeds.js';
import { createGate, guardExit, shut, type Gate } from './gate.js';
import type { Engine, EngineName, OpenOptions, RunOptions, Session } from './engine.js';
import {
  prepareTransfer,
  type Answer,
  type FromThread,
  type Opened,
  type Request,
  type ThreadData,
  type ToThread,
} from './protocol.js';

interface Pending {
  resolve(value: Answer): void;
  reject(error: KofnError): void;
}

/** Starts the thread; throws ENGINE when the runtime does not load there. */
export async function startThread(
  engine: EngineName,
  script: URL = new URL('./thread.js', import.meta.url),
  resourceLimits: ResourceLimits = {},
): Promise<Engine> {
  const gate = createGate();
  const unguard = engine === 'native' ? guardExit(gate) : () => undefined;
  const thread = new Worker(script, {
    workerData: { engine, gate } satisfies ThreadData,
    resourceLimits,
    execArgv: [], // the parent's, --input-type among them, are for its own main file
    name: `kofn-engine-${engine}`,
  });
  thread.once('exit', unguard);
  using listening = abortOnDispose();
  try {
    const first = await Promise.race([once(thread, 'message', listening), once(thread, 'exit', listening)]);
    const message = first[0] as FromThread | number;
    if (typeof message === 'number') throw new Error(`its thread ended with ${message}`);
    if (message.kind === 'failed') throw new Error(message.message);
    if (message.kind !== 'ready') throw new Error('its thread broke the protocol');
    return new ThreadEngine(engine, message.version, thread, gate);
  } catch (error) {
    await thread.terminate();
    throw KofnError.from(error, 'ENGINE', `the ${engine} engine does not start here`);
  }
}

/** Options that end a wait for an event when their block ends. */
function abortOnDispose(): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  return { signal: controller.signal, [Symbol.dispose]: () => controller.abort() };
}

class ThreadEngine implements Engine {
  readonly name: EngineName;
  readonly version: string;
  readonly normalise: Engine['normalise'];
  readonly #thread: Worker;
  readonly #gate: Gate;
  readonly #exited: Promise<void>;
  readonly #pending = new Map<number, Pending>();
  #calls = 0;
  /** Why no call can be made any more. */
  #ended: KofnError | undefined;

  constructor(name: EngineName, version: string, thread: Worker, gate: Gate) {
    this.name = name;
    this.version = version;
    this.#thread = thread;
    this.#gate = gate;
    this.#exited = new Promise(resolve => thread.once('exit', () => resolve()));
    thread.on('message', (message: FromThread) => this.#onMessage(message));
    thread.on('error', (error: Error) => this.#end(new KofnError('ENGINE', crashed(name, error.message))));
    thread.on('exit', code => this.#end(new KofnError('ENGINE', crashed(name, `exit code ${code}`))));
    thread.unref();
    if (name === 'native') {
      this.normalise = async (modelFile, target) => {
        await this.#call({ kind: 'normalise', modelFile, target });
      };
    }
  }

  async open(location: string, { threads = 1 }: OpenOptions = {}): Promise<Session> {
    if (!Number.isInteger(threads) || threads < 1) {
      throw new KofnError('INVALID_ARGUMENT', `threads: must be a whole number ≥ 1, got ${threads}`);
    }
    const opened = (await this.#call({ kind: 'open', folder: location, threads })) as Opened;
    return this.#session(opened);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end(new KofnError('CANCELLED', 'the engine is closed'));
    shut(this.#gate);
    this.#thread.ref();
    this.#thread.postMessage({ kind: 'close' } satisfies ToThread);
    await this.#exited;
  }

  #session({ session, inputs, outputs }: Opened): Session {
    let closed: KofnError | undefined;
    const running = new Set<Pending>();
    return {
      inputs,
      outputs,
      run: async (feeds: Tensors, { transfer = false }: RunOptions = {}) => {
        if (closed !== undefined) throw closed;
        checkFeeds(inputs, feeds);
        const { values, buffers } = prepareTransfer(feeds, transfer);
        return (await this.#call({ kind: 'run', session, feeds: values }, buffers, running)) as Tensors;
      },
      [Symbol.asyncDispose]: async () => {
        if (closed !== undefined) return;
        closed = new KofnError('CANCELLED', 'the session is closed');
        for (const call of running) call.reject(closed);
        if (this.#ended === undefined) {
          await this.#call({ kind: 'release', session }).catch((error: unknown) => {
            if (this.#ended === undefined) throw error;
          });
        }
      },
    };
  }

  #call(request: Request, buffers: ArrayBuffer[] = [], group?: Set<Pending>): Promise<Answer> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = ++this.#calls;
    return new Promise<Answer>((resolve, reject) => {
      const pending: Pending = {
        resolve: value => (group?.delete(pending), resolve(value)),
        reject: error => (group?.delete(pending), reject(error)),
      };
      this.#post({ ...request, id }, buffers);
      this.#pending.set(id, pending);
      group?.add(pending);
      this.#thread.ref();
    });
  }

  #post(message: ToThread, buffers: ArrayBuffer[]): void {
    try {
      this.#thread.postMessage(message, buffers);
    } catch {
      // A buffer that cannot be moved (Node's pool, another's memory): a clone does as well.
      try {
        this.#thread.postMessage(message);
      } catch (error) {
        throw KofnError.from(error, 'INVALID_ARGUMENT', "the inputs cannot be sent to the engine's thread");
      }
    }
  }

  #onMessage(message: FromThread): void {
    if (this.#ended !== undefined || message.kind === 'ready' || message.id === undefined) return;
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (this.#pending.size === 0) this.#thread.unref();
    if (message.kind === 'done') pending?.resolve(message.value);
    else pending?.reject(new KofnError(message.code, message.message));
  }

  #end(reason: KofnError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#pending.clear();
  }
}

function crashed(engine: EngineName, why: string): string {
  return `the thread of the ${engine} engine died (${why}); open a new engine, with less memory per session or --engine wasm`;
}
