/**
 * Gives local workers the time of a slower device: each run of a shard takes at least KOFN_DEVICE_MS, waited out and not
 * computed, so that workers that share the cores of one machine do not wait for each other as workers of their own would not.
 * Loaded into each worker before its own code (NODE_OPTIONS=--import); `useDeviceTime` says so to workers started afterwards.
 */
import { isMainThread } from 'node:worker_threads';

const NAME = 'KOFN_DEVICE_MS';

export function useDeviceTime(ms: number): void {
  process.env[NAME] = String(ms);
  process.env['NODE_OPTIONS'] = `${process.env['NODE_OPTIONS'] ?? ''} --import=${import.meta.url}`.trim();
}

async function install(ms: number): Promise<void> {
  const [{ sleep, systemClock }, { WorkerServer }] = await Promise.all([import('@kofn/core'), import('@kofn/worker')]);
  const open = WorkerServer.open.bind(WorkerServer);
  WorkerServer.open = async parts => {
    const server = await open(parts);
    const submit = server.queue.submit.bind(server.queue);
    server.queue.submit = (work, options) =>
      submit(async () => (await Promise.all([work(), sleep(systemClock, ms)]))[0], options);
    return server;
  };
}

const isWorker = isMainThread && process.argv[1]?.endsWith('kofn-worker.js') === true;
if (isWorker && process.env[NAME] !== undefined) await install(Number(process.env[NAME]));
