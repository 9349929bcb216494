/** A worker as in production, but for its engine: it answers at once, or after a stated delay. A child of a benchmark. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startWorker } from '@kofn/worker';
import { parentData, serveParent } from './child.js';
import { instantEngine } from './instant-engine.js';

export interface InstantWorkerData {
  readonly replyShape: readonly number[];
  readonly delayMs: number;
}

export interface InstantWorkerReady {
  readonly address: string;
}

/** What may be asked of it: to answer another shape from now on. Answered, as any question, with the CPU time it has taken. */
export interface InstantWorkerQuestion {
  readonly replyShape: readonly number[];
}

const { replyShape, delayMs } = parentData<InstantWorkerData>();
const dataDir = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
process.on('exit', () => rmSync(dataDir, { recursive: true, force: true }));
const engine = instantEngine(replyShape, delayMs);
const { address } = await startWorker({ listen: '127.0.0.1:0', dataDir, threads: 1 }, { engine });
serveParent({ address } satisfies InstantWorkerReady, question => {
  const { replyShape: next } = (question ?? {}) as Partial<InstantWorkerQuestion>;
  if (next !== undefined) engine.setReply(next);
  return process.cpuUsage();
});
