/**
 * Workers that one test leaves to the next: to start five processes takes longer than what most tests do with them. Those that a test
 * killed are started anew, the others go on; at the end of the run all are closed.
 */
import { startLocalWorkers, type LocalWorkers } from 'kofn';
import { after } from 'mocha';

/** The part of LocalWorkers that tests use; each worker is one of its own. */
export type KeptWorkers = Pick<LocalWorkers, 'addresses' | 'kill' | 'pause' | 'resume' | 'pidOf'> & AsyncDisposable;

const kept: LocalWorkers[] = [];

after(async () => {
  await Promise.all(kept.splice(0).map(worker => worker.close()));
});

/** `count` workers that run and hold nothing of an owner who closed; given back when disposed, paused ones included. */
export async function keptWorkers(count: number): Promise<KeptWorkers> {
  const alive = kept.splice(0, count);
  const started = Array.from({ length: count - alive.length }, () => startLocalWorkers(1));
  const workers = [...alive, ...(await Promise.all(started))];
  return {
    addresses: workers.map(({ addresses }) => addresses[0]!),
    kill: index => workers[index]!.kill(0),
    pause: index => workers[index]!.pause(0),
    resume: index => workers[index]!.resume(0),
    pidOf: index => workers[index]!.pidOf(0),
    async [Symbol.asyncDispose]() {
      for (const worker of workers) {
        worker.resume(0);
        if (worker.pidOf(0) === undefined) await worker.close();
        else kept.push(worker);
      }
    },
  };
}
