/**
 * The uncoded model in ONNX Runtime, in a child process (reference-child.ts) so that its memory and its crashes are not the
 * master's: what an answer is compared with.
 *
 * Invariants
 * 1. One question is open at a time; each gets an answer or an error.
 * 2. The child ends with `close`, and by itself when this process is gone (its IPC channel ends).
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { abortable, abortReason, isErrorCode, KofnError, throwIfAborted, type Tensors } from '@kofn/core';
import type { EngineName } from '@kofn/engine';
import { loadModel } from '@kofn/graph';
import type { Answer, OpenCommand, RunCommand } from './reference-child.js';

export interface ReferenceOptions {
  readonly engine?: EngineName | 'auto' | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Reference implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => this.#child.kill('SIGKILL');
  readonly #gone: Promise<void>;
  #stderr = '';

  /** Opens the model at `modelPath`. Throws INVALID_MODEL (ONNX Runtime refuses it), ENGINE, CANCELLED. */
  static async open(modelPath: string, options: ReferenceOptions = {}): Promise<Reference> {
    throwIfAborted(options.signal);
    const externalFiles = await externalFilesOf(modelPath);
    const reference = new Reference(options.signal);
    const { engine = 'auto', threads = 1 } = options;
    const command: OpenCommand = { kind: 'open', modelPath: path.resolve(modelPath), externalFiles, engine, threads };
    try {
      await reference.#ask(command);
    } catch (error) {
      await reference.close();
      throw error;
    }
    return reference;
  }

  private constructor(signal: AbortSignal | undefined) {
    const script = fileURLToPath(new URL('./reference-child.js', import.meta.url));
    this.#child = fork(script, { serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'], execArgv: [] });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-1000);
    });
    this.#gone = once(this.#child, 'close').then(
      () => undefined,
      (error: unknown) => void (this.#stderr = String(error)), // it did not start
    );
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** What the uncoded model answers. Throws ENGINE, CANCELLED. */
  async run(inputs: Tensors): Promise<Tensors> {
    const { outputs } = await this.#ask({ kind: 'run', inputs });
    if (outputs === undefined) throw new KofnError('INTERNAL', 'the reference process answered without outputs');
    return outputs;
  }

  async close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#child.kill('SIGKILL'); // it holds nothing that needs an orderly end
    await this.#gone;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #ask(command: OpenCommand | RunCommand): Promise<Answer> {
    throwIfAborted(this.#signal);
    const answered = new AbortController();
    try {
      const answer = once(this.#child, 'message', { signal: answered.signal }) as Promise<[Answer]>;
      answer.catch(() => undefined);
      this.#child.send(command, () => undefined); // a child that is gone shows in #gone
      const first = await abortable(Promise.race([answer, this.#gone]), this.#signal);
      if (first === undefined) throw this.#died();
      const [message] = first;
      if (message.error === undefined) return message;
      const { code, message: text } = message.error;
      throw new KofnError(isErrorCode(code) ? code : 'ENGINE', `the uncoded model (--compare): ${text}`);
    } finally {
      answered.abort();
    }
  }

  #died(): KofnError {
    if (this.#signal?.aborted) return abortReason(this.#signal);
    const { signalCode, exitCode } = this.#child;
    const how = signalCode ?? `exit code ${exitCode}`;
    const said = this.#stderr.trim();
    return new KofnError('ENGINE', `the process of the uncoded model (--compare) ended (${how})${said && `: ${said}`}`);
  }
}

/** Files with external data, relative to the model: WebAssembly cannot read them itself. */
async function externalFilesOf(modelPath: string): Promise<string[]> {
  const { constants } = await loadModel(modelPath);
  const locations = [...constants.values()].flatMap(({ externalData }) =>
    (externalData ?? []).filter(({ key }) => key === 'location').map(({ value }) => value ?? ''),
  );
  return [...new Set(locations)];
}
