/**
 * Processes of a benchmark: a script of this folder, started with an IPC channel, that says when it is ready and answers
 * questions.
 *
 * Invariants
 * 1. A child does not outlive its benchmark: it exits when the channel to its parent closes, and `close` waits for that.
 * 2. Only processes started here are signalled, by pid.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { abortable, KofnError, openScope, systemClock } from '@kofn/core';

const START_MS = 30_000;
const ANSWER_MS = 30_000;
const EXIT_MS = 5_000;

export class Child<Ready> implements AsyncDisposable {
  /** What it said first. */
  readonly ready: Ready;
  readonly #process: ChildProcess;

  /**
   * Starts `script` (its URL) with `data`, which it gets from `parentData`, and `env` beside the environment. Throws
   * UNAVAILABLE or DEADLINE_EXCEEDED.
   */
  static async start<Ready>(script: URL, data: unknown, env: NodeJS.ProcessEnv = {}): Promise<Child<Ready>> {
    const options = { execArgv: process.execArgv, env: { ...process.env, ...env } };
    const child = fork(script, [JSON.stringify(data)], options);
    try {
      return new Child(child, (await next(child, START_MS)) as Ready);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  private constructor(child: ChildProcess, ready: Ready) {
    this.#process = child;
    this.ready = ready;
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** One question at a time. Throws UNAVAILABLE or DEADLINE_EXCEEDED. */
  async ask<Answer>(question: unknown): Promise<Answer> {
    const answer = next(this.#process, ANSWER_MS);
    this.#process.send(question as object);
    return (await answer) as Answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.disconnect();
    const late = systemClock.setTimer(() => this.#process.kill('SIGKILL'), EXIT_MS);
    await exited;
    late.cancel();
  }
}

async function next(child: ChildProcess, deadlineMs: number): Promise<unknown> {
  using scope = openScope(systemClock, { deadlineMs, what: `answer of process ${child.pid}` });
  const left = new AbortController();
  const ended = once(child, 'exit', { signal: left.signal }).then(([code]) => {
    throw new KofnError('UNAVAILABLE', `a process of the benchmark ended with ${code}`);
  });
  try {
    const [message] = (await abortable(
      Promise.race([once(child, 'message', { signal: left.signal }), ended]),
      scope.signal,
    )) as unknown[];
    return message;
  } finally {
    left.abort();
    ended.catch(() => undefined);
  }
}

/** In a child: what it was started with. */
export function parentData<T>(): T {
  return JSON.parse(process.argv[2]!) as T;
}

/** In a child: says `ready`, answers each question, and exits when the parent has gone. */
export function serveParent(ready: unknown, answer: (question: unknown) => unknown = () => undefined): void {
  process.on('disconnect', () => process.exit());
  process.on('message', question => void Promise.resolve(answer(question)).then(reply => process.send!(reply ?? null)));
  process.send!(ready ?? null);
}

/** `count` children of one kind. */
export async function startAll<Ready>(
  count: number,
  script: URL,
  data: unknown,
  env?: NodeJS.ProcessEnv,
): Promise<{ readonly children: readonly Child<Ready>[]; readonly ready: readonly Ready[] } & AsyncDisposable> {
  const starts = await Promise.allSettled(Array.from({ length: count }, () => Child.start<Ready>(script, data, env)));
  const children = starts.flatMap(start => (start.status === 'fulfilled' ? [start.value] : []));
  const close = async () => {
    await Promise.all(children.map(child => child[Symbol.asyncDispose]()));
  };
  const failed = starts.find(start => start.status === 'rejected');
  if (failed !== undefined) {
    await close();
    throw failed.reason;
  }
  return { children, ready: children.map(({ ready }) => ready), [Symbol.asyncDispose]: close };
}
