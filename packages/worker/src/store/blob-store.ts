/**
 * The contract of a blob store: named folders of two files, kept, and a short text beside them that says whose they are.
 * fs-blob-store.ts keeps them on disk, the simulator in memory; shard-store.ts above it knows what names and owners mean.
 *
 * Invariants
 * 1. A blob is visible whole or not at all: a draft is invisible until `commit`, and a crash leaves nothing visible.
 * 2. What `commit` and `writeOwners` resolved for survives a crash. What `remove` took may come back by one, whole.
 * 3. Every failure is a KofnError naming the path: RESOURCE_EXHAUSTED (no space left) or STORAGE.
 * 4. A call that failed changed nothing that can be seen: a blob is still there, its owners' text is the old one (after
 *    a crash of the machine perhaps the new one, never a part).
 *
 * One caller at a time for one name; different names at once.
 */

/** The two files of a blob, in the order in which they are written and read. */
export const BLOB_FILES = ['model.onnx', 'weights.bin'] as const;
export type BlobFile = (typeof BLOB_FILES)[number];

export interface StoredBlob {
  readonly name: string;
  readonly modelBytes: number;
  readonly weightsBytes: number;
}

/** A blob being written. End it with `commit` or `discard`. */
export interface BlobDraft {
  /** Appends to `file`; `chunk` may be reused by the caller once it resolves. */
  write(file: BlobFile, chunk: Uint8Array): Promise<void>;
  /**
   * Makes the draft the blob `name`, its owners' text with it when one is given; when there is a blob already, that one
   * stays, takes the text, and the draft is dropped.
   */
  commit(name: string, owners?: string): Promise<void>;
  /** Harmless after `commit`. */
  discard(): Promise<void>;
}

export interface BlobStore {
  list(): Promise<StoredBlob[]>;
  create(): Promise<BlobDraft>;
  /** The bytes of one file in order. The caller does not keep a chunk: its memory may be reused for the next. */
  read(name: string, file: BlobFile): AsyncIterable<Uint8Array>;
  /** Where an engine finds the blob: the folder with the two files. */
  location(name: string): string;
  /** The text that `commit` or `writeOwners` kept last; undefined when there is none. */
  readOwners(name: string): Promise<string | undefined>;
  /** Puts `owners` in place of the text of a blob that is there. */
  writeOwners(name: string, owners: string): Promise<void>;
  /** Takes the blob and its owners' text away. Harmless when there is none. */
  remove(name: string): Promise<void>;
}
