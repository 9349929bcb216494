/**
 * Links in a process of their own (child.ts), so that a master whose event loop is blocked does not block the network too, and so
 * that the proxy's sockets are not counted as the master's.
 *
 * Invariants
 * 1. An order is carried out when its promise resolves. It rejects with INVALID_ARGUMENT for what it cannot be, and with UNAVAILABLE
 *    when the process has ended.
 * 2. The process ends on disposal, and by itself when its parent is gone (its IPC channel ends). Ctrl-C leaves it to its parent.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { KofnError } from '@kofn/core';
import type { Answer, Order } from './child.js';
import type { LinkMode } from './mode.js';
import type { LinkCounters } from './proxy.js';
import type { LinkShape } from './shape.js';
import type { LinkTarget } from './target.js';

export interface LinksOptions {
  /** Of every link. Default: nothing but forwarding. */
  readonly shape?: LinkShape | undefined;
  /** Of all draws; each link and direction has its own from it. Default 1. */
  readonly seed?: number | undefined;
}

export class Links implements AsyncDisposable {
  readonly #child: ChildProcess;
  #last: Promise<unknown> = Promise.resolve();
  #addresses: readonly string[] = [];

  /** One link to each of `targets`: a port on loopback, or `host:port`. */
  static async open(targets: readonly LinkTarget[], { shape, seed }: LinksOptions = {}): Promise<Links> {
    const links = new Links();
    try {
      const ports = (await links.#order({ kind: 'open', targets, shape, seed })) as number[];
      links.#addresses = ports.map(port => `127.0.0.1:${port}`);
    } catch (error) {
      await links[Symbol.asyncDispose]();
      throw error;
    }
    return links;
  }

  private constructor() {
    // 'advanced' carries the arrays of a trace as they are.
    this.#child = fork(fileURLToPath(new URL('./child.js', import.meta.url)), [], {
      execArgv: [],
      serialization: 'advanced',
    });
  }

  /** Of each link, in the order of the targets. */
  get addresses(): readonly string[] {
    return this.#addresses;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  async set(link: number, mode: LinkMode): Promise<void> {
    this.#check(link);
    await this.#order({ kind: 'set', link, mode });
  }

  /** What has not been sent yet takes the new shape; draws begin anew. Links of one shape share its bucket, whenever they got it. */
  async shape(links: readonly number[] | 'all', shape: LinkShape, seed = 1): Promise<void> {
    const which = links === 'all' ? this.#addresses.map((_, link) => link) : links;
    which.forEach(link => this.#check(link));
    await this.#order({ kind: 'shape', links: which, shape, seed });
  }

  /** Connections from now on go to `target`. */
  async aim(link: number, target: LinkTarget): Promise<void> {
    this.#check(link);
    await this.#order({ kind: 'aim', link, target });
  }

  /** Of each link, since it was opened. */
  async counters(): Promise<readonly LinkCounters[]> {
    return (await this.#order({ kind: 'counters' })) as LinkCounters[];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }

  get #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  #check(link: number): void {
    if (this.#addresses[link] !== undefined) return;
    throw new KofnError('INVALID_ARGUMENT', `there is no link ${link}; there are ${this.#addresses.length}`);
  }

  #order(order: Order): Promise<unknown> {
    const value = this.#last.then(() => this.#ask(order));
    this.#last = value.catch(() => undefined);
    return value;
  }

  async #ask(order: Order): Promise<unknown> {
    const gone = () => new KofnError('UNAVAILABLE', 'the process of the emulated links has ended');
    if (this.#hasEnded) throw gone();
    const child = this.#child;
    const answer = await new Promise<Answer | undefined>(resolve => {
      const onExit = () => resolve(undefined);
      const onMessage = (message: unknown) => {
        child.off('exit', onExit);
        resolve(message as Answer);
      };
      child.once('exit', onExit);
      child.once('message', onMessage);
      child.send(order, error => {
        if (error === null) return;
        child.off('exit', onExit).off('message', onMessage);
        resolve(undefined);
      });
    });
    if (answer === undefined) throw gone();
    if ('value' in answer) return answer.value;
    throw new KofnError(answer.code, answer.message);
  }
}
