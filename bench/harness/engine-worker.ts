/** A worker as in production, native engine of one thread included, that also says how it fares. A child of a benchmark. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startWorker } from '@kofn/worker';
import { parentData, serveParent } from './child.js';
import { cpuMs } from './cpu.js';
import { loopGapMsP99, watchLoop } from './loop-gaps.js';
import { memoryAfterGc } from './held-memory.js';

export interface EngineWorkerData {
  readonly allowFaults: boolean;
}

export interface EngineWorkerReady {
  readonly address: string;
}

const dataDir = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
process.on('exit', () => rmSync(dataDir, { recursive: true, force: true }));
const { allowFaults } = parentData<EngineWorkerData>();
const options = { listen: '127.0.0.1:0', dataDir, threads: 1, engine: 'native', allowFaults } as const;
const { address, server } = await startWorker(options);

const answers = {
  /** Takes a turn of the engine and does nothing with it: whatever came before has ended. */
  settle: () => server.queue.submit(() => Promise.resolve(true)),
  cpuMs,
  memory: memoryAfterGc,
  watchLoop,
  loopGapMsP99,
  /** The folders of the shards that it holds, as they were put. */
  shards: () => Promise.all(server.store.list().map(({ name }) => server.store.open(name))),
};
export type EngineWorkerQuestion = keyof typeof answers;

serveParent({ address } satisfies EngineWorkerReady, question => answers[question as EngineWorkerQuestion]());
