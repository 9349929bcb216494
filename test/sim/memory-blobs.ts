/**
 * A disk in memory (packages/worker/src/store/blob-store.ts is the contract). The disk outlives the process that writes it; a
 * process that died holds a view that does nothing any more.
 *
 * Invariants
 * 1. A draft is seen by nobody before its commit.
 * 2. A write beyond `limitBytes` fails as a full disk does, RESOURCE_EXHAUSTED, and leaves what is committed as it was.
 */
import { KofnError } from '@kofn/core';
import type { BlobDraft, BlobFile, BlobStore, StoredBlob } from '@kofn/worker';

interface Blob {
  readonly files: Map<BlobFile, Uint8Array>;
  owners: string | undefined;
}

export class MemoryDisk {
  readonly blobs = new Map<string, Blob>();
  limitBytes = Infinity;

  get usedBytes(): number {
    let bytes = 0;
    for (const { files } of this.blobs.values()) for (const data of files.values()) bytes += data.byteLength;
    return bytes;
  }

  /** Throws RESOURCE_EXHAUSTED when `bytes` more do not fit. */
  check(path: string, bytes: number): void {
    if (this.usedBytes + bytes <= this.limitBytes) return;
    throw new KofnError('RESOURCE_EXHAUSTED', `no space left for ${path} (ENOSPC)`);
  }

  /** Turns one bit of what is kept, as a failing disk does; `place` from 0 to 1 says where. */
  rot(place: number): void {
    const files = [...this.blobs.values()]
      .flatMap(blob => [...blob.files.values()])
      .filter(data => data.byteLength > 0);
    const at = place * files.length;
    const data = files[Math.floor(at)];
    // The highest bit of a byte: in a weight that is most often its sign or its exponent.
    if (data !== undefined) data[Math.floor((at % 1) * data.byteLength)]! ^= 0x80;
  }

  files(location: string): { model: Uint8Array; weights: Uint8Array } {
    const blob = this.#find(location.slice('disk/'.length));
    return { model: blob.files.get('model.onnx')!, weights: blob.files.get('weights.bin')! };
  }

  /** What a process sees of the disk while `isDead` says that it lives; a dead one waits for ever. */
  view(isDead: () => boolean): BlobStore {
    const living = <T>(work: () => T): Promise<T> =>
      isDead()
        ? new Promise<never>(() => undefined)
        : new Promise(resolve => {
            resolve(work());
          });
    const find = (name: string) => this.#find(name);
    return {
      list: () => living(() => [...this.blobs].map(([name, blob]) => stored(name, blob))),
      create: () => living(() => this.#draft(living)),
      async *read(name: string, file: BlobFile) {
        yield await living(() => find(name).files.get(file)!);
      },
      location: name => `disk/${name}`,
      readOwners: name => living(() => this.blobs.get(name)?.owners),
      writeOwners: (name, owners) =>
        living(() => {
          this.check(`disk/${name}/owners.json`, owners.length);
          this.#find(name).owners = owners;
        }),
      remove: name => living(() => void this.blobs.delete(name)),
    };
  }

  #draft(living: <T>(work: () => T) => Promise<T>): BlobDraft {
    const chunks: Record<BlobFile, Uint8Array[]> = { 'model.onnx': [], 'weights.bin': [] };
    let bytes = 0;
    return {
      write: (file, chunk) =>
        living(() => {
          this.check(`disk/tmp/${file}`, bytes + chunk.byteLength);
          bytes += chunk.byteLength;
          chunks[file].push(chunk.slice());
        }),
      commit: (name, owners) =>
        living(() => {
          const old = this.blobs.get(name);
          if (old !== undefined) {
            old.owners = owners ?? old.owners;
            return;
          }
          this.check(`disk/${name}`, bytes);
          const join = (file: BlobFile) => [file, new Uint8Array(Buffer.concat(chunks[file]))] as const;
          this.blobs.set(name, { files: new Map([join('model.onnx'), join('weights.bin')]), owners });
        }),
      discard: () => living(() => undefined),
    };
  }

  #find(name: string): Blob {
    const blob = this.blobs.get(name);
    if (blob !== undefined) return blob;
    throw new KofnError('STORAGE', `cannot use disk/${name}: no such file or directory`);
  }
}

function stored(name: string, { files }: Blob): StoredBlob {
  const bytes = (file: BlobFile) => files.get(file)!.byteLength;
  return { name, modelBytes: bytes('model.onnx'), weightsBytes: bytes('weights.bin') };
}
