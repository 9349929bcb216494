/**
 * Links in a process of their own, so that a master whose event loop is blocked does not block the network too, and so that the
 * proxy's sockets are not counted as the master's. This file is both ends: `Links` forks it.
 *
 * Invariants
 * 1. An order is carried out when its promise resolves.
 * 2. The process ends with `close`, and by itself when its parent is gone (its IPC channel ends).
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Link, type LinkMode } from './proxy.js';

type Order =
  | { readonly kind: 'open'; readonly target: number }
  | { readonly kind: 'set'; readonly link: number; readonly mode: LinkMode }
  | { readonly kind: 'aim'; readonly link: number; readonly target: number };

export class Links implements AsyncDisposable {
  readonly #child: ChildProcess;
  #last: Promise<unknown> = Promise.resolve();
  #addresses: string[] = [];

  /** One link to each port of `targets` on loopback. */
  static async open(targets: readonly number[]): Promise<Links> {
    const links = new Links();
    try {
      for (const target of targets) links.#addresses.push(`127.0.0.1:${await links.#order({ kind: 'open', target })}`);
    } catch (error) {
      await links[Symbol.asyncDispose]();
      throw error;
    }
    return links;
  }

  private constructor() {
    this.#child = fork(fileURLToPath(import.meta.url), ['links'], { execArgv: [] });
  }

  get addresses(): readonly string[] {
    return this.#addresses;
  }

  async set(link: number, mode: LinkMode): Promise<void> {
    await this.#order({ kind: 'set', link, mode });
  }

  /** Connections from now on go to `target`. */
  async aim(link: number, target: number): Promise<void> {
    await this.#order({ kind: 'aim', link, target });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }

  /** One order at a time, each answered by one number. */
  #order(order: Order): Promise<number> {
    const answer = this.#last.then(async () => {
      const ended = new AbortController();
      const answered = once(this.#child, 'message', { signal: ended.signal });
      const gone = once(this.#child, 'exit', { signal: ended.signal });
      for (const wait of [answered, gone]) wait.catch(() => undefined);
      try {
        this.#child.send(order);
        const [reply] = (await Promise.race([answered, gone.then(() => ['gone'])])) as [unknown];
        if (typeof reply !== 'number') throw new Error('the process of the links ended');
        return reply;
      } finally {
        ended.abort();
      }
    });
    this.#last = answer.catch(() => undefined);
    return answer;
  }
}

function serve(): void {
  const links: Link[] = [];
  const carryOut = async (order: Order): Promise<number> => {
    if (order.kind === 'open') {
      const link = await Link.open(order.target);
      links.push(link);
      return link.port;
    }
    if (order.kind === 'set') links[order.link]!.mode = order.mode;
    else links[order.link]!.target = order.target;
    return 0;
  };
  process.on('message', order => void carryOut(order as Order).then(reply => process.send!(reply)));
  process.on('disconnect', () => process.exit());
}

if (process.argv[2] === 'links' && process.send !== undefined) serve();
