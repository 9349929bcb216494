/**
 * The claims on one shard: each is a lease. They are kept beside the shard as a JSON array of owners, each with what the shard is to
 * it, without the ends of their leases: a clock's origin is another one after a restart, which therefore begins each lease anew. So a restart
 * holds bytes longer than promised, never shorter.
 */
import { KofnError } from '@kofn/core';
import { checkBlock, checkOwner, type Owner, type ShardBlock } from '@kofn/wire';

export const LEASE_MS = 24 * 3600 * 1000;
/** So that whoever invents owners fills neither the memory nor the disk. */
const MAX_OWNERS = 100;
/** Of one owner; of more the first are kept. Layers of the same weights are rare. */
const MAX_BLOCKS = 16;

/** Holds what was put without an owner; no peer can be it, since its cluster is empty. */
export const NOBODY: Owner = { cluster: '', model: '', version: 0 };

interface Lease {
  readonly owner: Owner;
  readonly blocks: readonly ShardBlock[];
  readonly endMs: number;
}

export class Leases {
  readonly #byOwner = new Map<string, Lease>();

  /** `text` is what `textOf`, `textWith` or `textWithout` gave; without one, or with a damaged one, NOBODY has a lease. */
  constructor(text: string | undefined, nowMs: number) {
    for (const { owner, blocks } of claimsIn(text)) {
      this.#byOwner.set(keyOf(owner), { owner, blocks, endMs: nowMs + LEASE_MS });
    }
  }

  get size(): number {
    return this.#byOwner.size;
  }

  /** Without NOBODY. */
  owners(): Owner[] {
    return this.#all().filter(owner => owner.cluster !== NOBODY.cluster);
  }

  /** What the shard is to its owners. */
  uses(): { owner: Owner; block: ShardBlock }[] {
    return [...this.#byOwner.values()].flatMap(({ owner, blocks }) => blocks.map(block => ({ owner, block })));
  }

  has(owner: Owner): boolean {
    return this.#byOwner.has(keyOf(owner));
  }

  /** Whether `owner` has a lease and has said already that the shard is `block`, if it is. */
  knows(owner: Owner, block?: ShardBlock): boolean {
    return this.has(owner) && this.#with(owner, block).length === this.#with(owner).length;
  }

  /** Begins the lease of `owner`, to whom the shard is `block` among others, or begins it anew. */
  begin({ cluster, model, version }: Owner, nowMs: number, block?: ShardBlock): void {
    const owner = { cluster, model, version };
    this.#byOwner.set(keyOf(owner), { owner, blocks: this.#with(owner, block), endMs: nowMs + LEASE_MS });
  }

  /** Lets the leases of `owners` end `delayMs` from now instead. */
  postpone(owners: readonly Owner[], nowMs: number, delayMs: number): void {
    for (const owner of owners) {
      this.#byOwner.set(keyOf(owner), { owner, blocks: this.#with(owner), endMs: nowMs + delayMs });
    }
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

  /** What to keep once `owner` has joined, or has said that the shard is `block`. Throws RESOURCE_EXHAUSTED. */
  textWith(owner: Owner, block?: ShardBlock): string {
    if (this.size >= MAX_OWNERS && !this.has(owner)) {
      throw new KofnError(
        'RESOURCE_EXHAUSTED',
        `the shard has ${MAX_OWNERS} owners, which is the most; remove the claims of some`,
      );
    }
    const claims = new Map<string, Claim>(this.#byOwner);
    return textOfClaims([...claims.set(keyOf(owner), { owner, blocks: this.#with(owner, block) }).values()]);
  }

  /** What to keep once `owners` have left; undefined when nobody is left then. */
  textWithout(owners: readonly Owner[]): string | undefined {
    const leaving = new Set(owners.map(keyOf));
    const left = [...this.#byOwner.values()].filter(({ owner }) => !leaving.has(keyOf(owner)));
    return left.length === 0 ? undefined : textOfClaims(left);
  }

  /** What the shard is to `owner`, `block` with it. */
  #with(owner: Owner, block?: ShardBlock): readonly ShardBlock[] {
    const blocks = this.#byOwner.get(keyOf(owner))?.blocks ?? [];
    if (block === undefined || blocks.length >= MAX_BLOCKS) return blocks;
    const text = JSON.stringify(block);
    return blocks.some(known => JSON.stringify(known) === text) ? blocks : [...blocks, block];
  }

  #all(): Owner[] {
    return [...this.#byOwner.values()].map(({ owner }) => owner);
  }
}

/** The text for a shard that `owner` alone claims; undefined for NOBODY, who needs none. */
export function textOf(owner: Owner, block?: ShardBlock): string | undefined {
  if (owner.cluster === NOBODY.cluster) return undefined;
  return textOfClaims([{ owner, blocks: block === undefined ? [] : [block] }]);
}

type Claim = Pick<Lease, 'owner' | 'blocks'>;

function textOfClaims(claims: readonly Claim[]): string {
  const objects = claims.map(({ owner: { cluster, model, version }, blocks }) => {
    return { cluster, model, version, ...(blocks.length === 0 ? {} : { blocks }) };
  });
  return JSON.stringify(objects);
}

function claimsIn(text: string | undefined): Claim[] {
  try {
    const kept = JSON.parse(text ?? '') as (Owner & { blocks?: ShardBlock[] })[];
    const claims = kept.map(({ cluster, model, version, blocks = [] }): Claim => {
      if (cluster === NOBODY.cluster) return { owner: NOBODY, blocks: [] };
      return { owner: checkOwner({ cluster, model, version }), blocks: blocks.slice(0, MAX_BLOCKS).map(checkBlock) };
    });
    if (claims.length > 0 && claims.length <= MAX_OWNERS) return claims;
  } catch {
    // No text, or a damaged one: the claims in it are lost, the bytes are not.
  }
  return [{ owner: NOBODY, blocks: [] }];
}

function keyOf({ cluster, model, version }: Owner): string {
  return JSON.stringify([cluster, model, version]);
}
