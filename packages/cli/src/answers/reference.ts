/**
 * The uncoded model in ONNX Runtime, in a child process (reference-child.ts) so that its memory and its crashes are not the
 * master's: what an answer is compared with. It runs at the optimisation that plans begin with (`basic`); how much other levels and
 * numbers of threads change its own answer is what `differences` tells.
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
import { compareOutputs, type SelfDifferences } from './compare.js';
import type { Answer, OpenCommand, RunCommand } from './reference-child.js';

type Setting = Pick<OpenCommand, 'level' | 'threads'>;

export interface ReferenceOptions {
  readonly engine?: EngineName | 'auto' | undefined;
  readonly threads?: number | undefined;
  /** Inputs to find `differences` with; without them there are none. */
  readonly sample?: Tensors | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Reference implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => this.#child.kill('SIGKILL');
  readonly #gone: Promise<void>;
  #stderr = '';
  #settings: readonly string[] = [];
  #differences: SelfDifferences = {};

  /** Opens the model at `modelPath`. Throws INVALID_MODEL (ONNX Runtime refuses it), ENGINE, CANCELLED. */
  static async open(modelPath: string, options: ReferenceOptions = {}): Promise<Reference> {
    throwIfAborted(options.signal);
    const externalFiles = await externalFilesOf(modelPath);
    const reference = new Reference(options.signal);
    const { engine = 'auto', threads = 1, sample } = options;
    const open = (setting: Setting) =>
      reference.#ask({ kind: 'open', modelPath: path.resolve(modelPath), externalFiles, engine, ...setting });
    try {
      const others = sample === undefined ? [] : await reference.#othersAnswers(open, otherSettings(threads), sample);
      await open({ level: 'basic', threads });
      if (sample !== undefined) await reference.#differFrom(others, sample);
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

  /** How ONNX Runtime was set to find the differences, in words; none without a sample, or where it opened with no other setting. */
  get settings(): readonly string[] {
    return this.#settings;
  }

  /** The largest difference of each output to what other settings gave for the sample, relative to its largest magnitude. */
  get differences(): SelfDifferences {
    return this.#differences;
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

  /** One session after the other, for a large model's memory. A setting that cannot run this model is left out. */
  async #othersAnswers(
    open: (setting: Setting) => Promise<unknown>,
    settings: readonly Setting[],
    sample: Tensors,
  ): Promise<(readonly [string, Tensors])[]> {
    const answers: (readonly [string, Tensors])[] = [];
    for (const setting of settings) {
      try {
        await open(setting);
        answers.push([
          `${setting.level}, ${setting.threads} thread${setting.threads === 1 ? '' : 's'}`,
          await this.run(sample),
        ]);
      } catch (error) {
        if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#signal?.aborted) throw error;
      }
    }
    return answers;
  }

  async #differFrom(others: readonly (readonly [string, Tensors])[], sample: Tensors): Promise<void> {
    const own = await this.run(sample);
    const largest: Record<string, number> = {};
    for (const [, answer] of others) {
      for (const [name, { maxRelError }] of Object.entries(compareOutputs(answer, own))) {
        largest[name] = Math.max(largest[name] ?? 0, maxRelError);
      }
    }
    this.#settings = others.map(([setting]) => setting);
    this.#differences = largest;
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

/** Settings other than the reference's own. */
function otherSettings(threads: number): Setting[] {
  return [
    { level: 'disabled', threads },
    { level: 'all', threads },
    { level: 'basic', threads: threads === 1 ? 4 : 1 },
  ];
}

/** Files with external data, relative to the model: WebAssembly cannot read them itself. */
async function externalFilesOf(modelPath: string): Promise<string[]> {
  const { constants } = await loadModel(modelPath);
  const locations = [...constants.values()].flatMap(({ externalData }) =>
    (externalData ?? []).filter(({ key }) => key === 'location').map(({ value }) => value ?? ''),
  );
  return [...new Set(locations)];
}
