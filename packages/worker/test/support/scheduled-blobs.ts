import type { Scheduler } from 'fast-check';
import type { BlobStore } from '../../src/store/blob-store.js';

/** `blobs`, where each step that changes something begins, and answers, when the scheduler lets it. */
export function scheduledBlobs(blobs: BlobStore, scheduler: Scheduler): BlobStore {
  const step = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    await scheduler.schedule(Promise.resolve(), what);
    return scheduler.schedule(work(), `${what} done`);
  };
  return {
    list: () => blobs.list(),
    read: (name, file) => blobs.read(name, file),
    location: name => blobs.location(name),
    readOwners: name => blobs.readOwners(name),
    writeOwners: (name, owners) => step('writeOwners', () => blobs.writeOwners(name, owners)),
    remove: name => step('remove', () => blobs.remove(name)),
    async create() {
      const draft = await step('create', () => blobs.create());
      return {
        write: (file, chunk) => draft.write(file, chunk),
        commit: (name, owners) => step('commit', () => draft.commit(name, owners)),
        discard: () => draft.discard(),
      };
    },
  };
}
