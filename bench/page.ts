/**
 * page: what an open page costs the master that serves: its processor time under 200 requests a second of the Fashion model, with a
 * reader of `GET /kofn/v1/events` and without, slice by slice in turn. Requests come from within the process, an open loop; the reader is a
 * process of its own, that reads all and shows nothing.
 *
 * Workers compute each input once and then answer from memory (worker/src/faults/emulated-device.ts), and there are three of them with the fully
 * connected layers coded: with more, two cores do not keep up with the rate, and what a saturated master takes says nothing.
 *
 * Not measured: what the browser needs, and the page's own requests (Try it), which cost what requests cost.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { KofnError, sleep, systemClock } from '@kofn/core';
import { registerPage, startServer } from '@kofn/master/serve';
import { connect, startLocalWorkers } from 'kofn';
import { FaultControl, loadDemoData } from 'kofn/measure';
import { figure, type Bench } from './bench.js';
import { cpuMs } from './harness/cpu.js';
import { OpenLoop } from './harness/open-loop.js';

const PER_SECOND = 200;
const WORKERS = 3;
const LAYERS = ['fc1', 'fc2'];
const NO_LIMIT = 1e6;
const SLICE_MS = 2_000;
const SLICES = 20;
const WARM_UP = 2_000;
/** Requests under way at the end of a slice. */
const MAX_BEHIND = 100;
/** Whoever is late is measured, not refused. */
const MAX_IN_FLIGHT = 4_096;
const ANY = { host: '127.0.0.1', port: 0 };
const READER = `
import http from 'node:http';
http.get(process.argv[1], response => response.once('data', () => console.log('reads')).resume());
`;

export const page: Bench = {
  name: 'page',
  what: `the master's processor time at ${PER_SECOND} requests/s of the Fashion model while a page is open`,
  baseline: 'the same without the page',
  async run({ progress }) {
    const data = await loadDemoData();
    await using workers = await startLocalWorkers(WORKERS, { extraArgs: ['--allow-faults'] });
    for (const address of workers.addresses) {
      await using control = await FaultControl.connect(address);
      await control.set({ device: { gflops: NO_LIMIT, overheadMs: 0, replay: true } });
    }
    await using cluster = await connect({ workers: workers.addresses, maxInFlight: MAX_IN_FLIGHT });
    await using running = await startServer({
      ...{ cluster, version: '0', http: ANY, maxRunning: MAX_IN_FLIGHT },
      models: [{ name: 'fashion', version: '1', file: data.modelPath, options: { parity: 1, layers: LAYERS } }],
    });
    const call = { model: 'fashion', version: '', id: '', inputs: data.inputs(0), outputs: [] };
    const load = new OpenLoop(
      () => running.server.infer({ ...call, signal: new AbortController().signal }),
      PER_SECOND,
    );
    await load.more(WARM_UP);
    const measured = async () => {
      const percent = await percentOfACore();
      const { queued, running: behind } = running.server.load();
      if (queued + behind > MAX_BEHIND) {
        const message = `this machine does not keep up with ${PER_SECOND} requests/s: ${queued + behind} are under way`;
        throw new KofnError('RESOURCE_EXHAUSTED', `${message}; close what else runs on it`);
      }
      return percent;
    };
    const samples = { value: [] as number[], baseline: [] as number[] };
    for (let slice = 0; slice < SLICES; slice++) {
      const open = async () => {
        // A server of its own, for a feed goes on for a while when its reader has gone.
        await using shown = await startServer({ cluster, version: '0', http: ANY, models: [] }, app =>
          registerPage(app, running.server, { faults: undefined }),
        );
        const reader = await openReader(`http://${shown.httpAddress}/kofn/v1/events`);
        samples.value.push(await measured());
        await closeReader(reader);
      };
      const closed = async () => void samples.baseline.push(await measured());
      for (const work of slice % 2 === 0 ? [open, closed] : [closed, open]) await work();
      progress(slice + 1, SLICES);
    }
    await load.stop();
    return [figure({ name: 'master', unit: '% of a core', target: { atMost: 1.05 } }, samples)];
  },
};

async function percentOfACore(): Promise<number> {
  const [startMs, startCpuMs] = [systemClock.now(), cpuMs()];
  await sleep(systemClock, SLICE_MS);
  return (100 * (cpuMs() - startCpuMs)) / (systemClock.now() - startMs);
}

async function openReader(url: string): Promise<ChildProcess> {
  const reader = spawn(process.execPath, ['--input-type=module', '-e', READER, url], { stdio: ['ignore', 'pipe', 2] });
  await once(reader.stdout!, 'data');
  return reader;
}

async function closeReader(reader: ChildProcess): Promise<void> {
  reader.kill();
  await once(reader, 'exit');
}
