/**
 * Real rates: a network namespace for each worker, with a veth pair to this one whose both ends send through a token bucket (tbf). The
 * kernel then does what it does on a line of that rate, TCP's congestion control and losses in a full queue too. Linux, root, and the
 * tools `ip` and `tc` (Debian: iproute2).
 *
 * Addresses are of 198.18.0.0/15, which is set aside for benchmarks of networks (RFC 2544), in a block that nothing here has a route to.
 *
 * Invariants
 * 1. What is made here is gone on disposal and when this process exits; what a killed run left is removed by the next `open`.
 * 2. `open` makes all or nothing.
 */
import { execFile, execFileSync } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { KofnError } from '@kofn/core';
import { isLeftover, ownName, removeAtExit } from './leftovers.js';

const FOLDER = '/run/netns';
const BLOCK_START = (198 << 24) | (18 << 16);
const BLOCK_ADDRESSES = 1024; // a /30 for each of 256 workers
const BLOCKS = 128;
/** The bucket: what a line of that rate sends in 1 ms, and no less than a few frames, or the rate is not reached. */
const MIN_BURST_BYTES = 10_000;
/** The queue before it: 50 ms, and no less than what one reply may have in flight. */
const QUEUE_MS = 50;
const MIN_QUEUE_BYTES = 128 * 1024;
const BYTES_PER_MEGABIT_MS = 125;
const QUIET = { stdio: 'ignore' } as const;

const run = promisify(execFile);

/** Why there can be no namespaces here, after having tried; undefined when there can. */
export async function namespacesAvailable(): Promise<string | undefined> {
  try {
    await using namespaces = await NetworkNamespaces.open(1);
    await namespaces.setRate(100);
    return undefined;
  } catch (error) {
    return KofnError.from(error).message;
  }
}

export class NetworkNamespaces implements AsyncDisposable {
  readonly #names: string[] = [];
  readonly #firstAddress: number;
  readonly #keep: () => void;

  /** Without a limit to their rates. Throws INVALID_ARGUMENT (count), UNSUPPORTED (not Linux, not root, no tools, not permitted), RESOURCE_EXHAUSTED (addresses). */
  static async open(count: number): Promise<NetworkNamespaces> {
    if (!Number.isInteger(count) || count < 1 || count > 256) {
      throw new KofnError('INVALID_ARGUMENT', `${count} network namespaces: give a whole number from 1 to 256`);
    }
    if (process.platform !== 'linux') throw impossible('only Linux has them');
    if (process.getuid!() !== 0) throw impossible('it takes root');
    await tool('tc', ['-Version']);
    await removeLeftovers();
    const namespaces = new NetworkNamespaces(await freeBlock());
    try {
      for (let index = 0; index < count; index++) await namespaces.#add();
    } catch (error) {
      await namespaces[Symbol.asyncDispose]();
      throw error;
    }
    return namespaces;
  }

  private constructor(firstAddress: number) {
    this.#firstAddress = firstAddress;
    this.#keep = removeAtExit(() => this.#removeNow());
  }

  /** What to put before a command line so that it runs inside; the process that runs is then the command's own. */
  command(index: number): readonly string[] {
    return ['ip', 'netns', 'exec', this.#name(index)];
  }

  /** The IPv4 address inside, which this namespace reaches. */
  address(index: number): string {
    this.#name(index);
    return dotted(this.#firstAddress + 4 * index + 2);
  }

  /** Each way, for each worker, from now on: from 0.1 to 10,000, or undefined for no limit. Throws INVALID_ARGUMENT. */
  async setRate(megabitsPerSecond: number | undefined): Promise<void> {
    const rate = megabitsPerSecond;
    if (rate !== undefined && !(rate >= 0.1 && rate <= 10_000)) {
      throw new KofnError('INVALID_ARGUMENT', `megabitsPerSecond is ${rate}: must be from 0.1 to 10000`);
    }
    for (const name of this.#names) {
      for (const [where, device] of [
        [[], deviceOf(name)],
        [['-netns', name], 'eth0'],
      ] as const) {
        const end = ['dev', device, 'root'];
        // There may be none to delete.
        if (rate === undefined) await run('tc', [...where, 'qdisc', 'del', ...end]).catch(() => undefined);
        else await tool('tc', [...where, 'qdisc', 'replace', ...end, ...bucketOf(rate)]);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#names.splice(0)) await remove(name);
    this.#keep();
  }

  #name(index: number): string {
    const name = this.#names[index];
    if (name !== undefined) return name;
    throw new KofnError('INVALID_ARGUMENT', `there is no network namespace ${index}; there are ${this.#names.length}`);
  }

  async #add(): Promise<void> {
    const name = ownName();
    const outside = deviceOf(name);
    const [ours, theirs] = [1, 2].map(host => dotted(this.#firstAddress + 4 * this.#names.length + host));
    this.#names.push(name); // from here on there is something to remove
    const inside = ['-netns', name];
    await tool('ip', ['netns', 'add', name]);
    await tool('ip', ['link', 'add', outside, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name]);
    await tool('ip', ['addr', 'add', `${ours}/30`, 'dev', outside]);
    await tool('ip', ['link', 'set', outside, 'up']);
    await tool('ip', [...inside, 'addr', 'add', `${theirs}/30`, 'dev', 'eth0']);
    for (const device of ['eth0', 'lo']) await tool('ip', [...inside, 'link', 'set', device, 'up']);
  }

  #removeNow(): void {
    for (const name of this.#names) {
      for (const args of removal(name)) {
        try {
          execFileSync('ip', args, QUIET);
        } catch {
          // This process is ending; the next run tries again.
        }
      }
    }
  }
}

function bucketOf(rate: number): string[] {
  const burst = Math.max(MIN_BURST_BYTES, Math.ceil(rate * BYTES_PER_MEGABIT_MS));
  const limit = Math.max(MIN_QUEUE_BYTES, Math.ceil(rate * BYTES_PER_MEGABIT_MS * QUEUE_MS)) + burst;
  return ['tbf', 'rate', `${Math.round(rate * 1e6)}bit`, 'burst', `${burst}`, 'limit', `${limit}`];
}

/** The veth end here: a device's name has 15 characters at most, a pid 7. */
function deviceOf(name: string): string {
  return name.replace('kofn-', 'kf');
}

/** The pair first: a namespace lives as long as a process in it. */
function removal(name: string): string[][] {
  return [
    ['link', 'del', deviceOf(name)],
    ['netns', 'del', name],
  ];
}

async function remove(name: string): Promise<void> {
  for (const args of removal(name)) {
    // It may not have come to be, or be gone with its other half.
    await run('ip', args).catch(() => undefined);
  }
}

async function removeLeftovers(): Promise<void> {
  const names = await readdir(FOLDER).catch(() => []);
  for (const name of names) if (isLeftover(name)) await remove(name);
}

/** The first address of a block that overlaps no route of this machine; begins elsewhere for each process, as runs may start at once. */
async function freeBlock(): Promise<number> {
  const routes = JSON.parse(await tool('ip', ['-json', '-4', 'route', 'show', 'table', 'all'])) as { dst: string }[];
  const taken = routes.filter(({ dst }) => dst !== 'default').map(({ dst }) => rangeOf(dst));
  for (let tried = 0; tried < BLOCKS; tried++) {
    const start = (BLOCK_START >>> 0) + ((process.pid + tried) % BLOCKS) * BLOCK_ADDRESSES;
    const end = start + BLOCK_ADDRESSES;
    if (taken.every(({ from, to }) => to <= start || from >= end)) return start;
  }
  throw new KofnError('RESOURCE_EXHAUSTED', 'network namespaces: this machine has routes to all of 198.18.0.0/15');
}

/** Of `a.b.c.d/bits`; without bits one address. */
function rangeOf(destination: string): { from: number; to: number } {
  const [address, bits = '32'] = destination.split('/');
  const from = address!.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  return { from, to: from + 2 ** (32 - Number(bits)) };
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map(shift => (address >>> shift) & 255).join('.');
}

async function tool(name: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(name, args)).stdout;
  } catch (error) {
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === 'ENOENT') throw impossible(`there is no "${name}" here (Debian: apt install iproute2)`);
    const said = stderr?.trim() || KofnError.from(error).message;
    throw impossible(`"${name} ${args.join(' ')}" failed: ${said}`, error);
  }
}

function impossible(why: string, cause?: unknown): KofnError {
  return new KofnError('UNSUPPORTED', `network namespaces are not possible here: ${why}`, { cause });
}
