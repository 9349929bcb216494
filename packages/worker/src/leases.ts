/**
 * The claims on one shard: each is a lease. They are kept beside the shard as a JSON array of owners, without the ends
 * of their leases: a clock's origin is another one after a restart, which therefore begins each lease anew. So a restart
 * holds bytes longer than promised, never shorter.
 */
import { KofnError } from '@kofn/core';
import { checkOwner, type Owner } from '@kofn/wire';

export const LEASE_MS = 24 * 3600 * 1000;
/** So that whoever invents owners fills neither the memory nor the disk. */
const MAX_OWNERS = 100;

/** Holds what was put without an owner; no peer can be it, since its cluster is empty. */
export const NOBODY: Owner = { cluster: '', model: '', version: 0 };

interface Lease {
  readonly owner: Owner;
  readonly endMs: number;
}

export class Leases {
  readonly #byOwner = new Map<string, Lease>();

  /** `text` is what `textOf`, `textWith` or `textWithout` gave; without one, or with a damaged one, NOBODY has a lease. */
  constructor(text: string | undefined, nowMs: number) {
    for (const owner of ownersIn(text)) this.begin(owner, nowMs);
  }

  get size(): number {
    return this.#byOwner.size;
  }

  /** Without NOBODY. */
  owners(): Owner[] {
    return this.#all().filter(owner => owner.cluster !== NOBODY.cluster);
  }

  has(owner: Owner): boolean {
    return this.#byOwner.has(keyOf(owner));
  }

  /** Begins the lease of `owner`, or begins it anew. */
  begin({ cluster, model, version }: Owner, nowMs: number): void {
    const owner = { cluster, model, version };
    this.#byOwner.set(keyOf(owner), { owner, endMs: nowMs + LEASE_MS });
  }

  /** Lets the leases of `owners` end `delayMs` from now instead. */
  postpone(owners: readonly Owner[], nowMs: number, delayMs: number): void {
    for (const owner of owners) this.#byOwner.set(keyOf(owner), { owner, endMs: nowMs + delayMs });
  }

  drop(owners: readonly Owner[]): void {
    for (const owner of owners) this.#byOwner.delete(keyOf(owner));
  }

  /** Those whose lease has ended. */
  ended(nowMs: number): Owner[] {
    return [...this.#byOwner.values()].filter(({ endMs }) => endMs <= nowMs).map(({ owner }) => owner);
  }

  /** When the first lease ends. */
  get earliestEndMs(): number {
    let earliest = Infinity;
    for (const { endMs } of this.#byOwner.values()) earliest = Math.min(earliest, endMs);
    return earliest;
  }

  /** What to keep once `owner` has joined. Throws RESOURCE_EXHAUSTED. */
  textWith(owner: Owner): string {
    if (this.size >= MAX_OWNERS) {
      throw new KofnError(
        'RESOURCE_EXHAUSTED',
        `the shard has ${MAX_OWNERS} owners, which is the most; remove the claims of some`,
      );
    }
    return JSON.stringify([...this.#all(), owner]);
  }

  /** What to keep once `owners` have left; undefined when nobody is left then. */
  textWithout(owners: readonly Owner[]): string | undefined {
    const leaving = new Set(owners.map(keyOf));
    const left = this.#all().filter(owner => !leaving.has(keyOf(owner)));
    return left.length === 0 ? undefined : JSON.stringify(left);
  }

  #all(): Owner[] {
    return [...this.#byOwner.values()].map(({ owner }) => owner);
  }
}

/** The text for a shard that `owner` alone claims; undefined for NOBODY, who needs none. */
export function textOf(owner: Owner): string | undefined {
  return owner.cluster === NOBODY.cluster ? undefined : JSON.stringify([owner]);
}

function ownersIn(text: string | undefined): Owner[] {
  try {
    const owners = (JSON.parse(text ?? '') as Owner[]).map(({ cluster, model, version }) => {
      if (cluster === NOBODY.cluster) return NOBODY;
      return checkOwner({ cluster, model, version });
    });
    if (owners.length > 0 && owners.length <= MAX_OWNERS) return owners;
  } catch {
    // No text, or a damaged one: the claims in it are lost, the bytes are not.
  }
  return [NOBODY];
}

function keyOf({ cluster, model, version }: Owner): string {
  return JSON.stringify([cluster, model, version]);
}
