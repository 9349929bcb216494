/**
 * model: processor time of a request to a whole model, master and workers together, against the same model in one process. With
 * one parity block on five workers each multiplication is there 5/4 times; the rest is what cutting, sending and decoding cost.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { codedModel } from 'kofn';
import { figure, type Bench } from './bench.js';
import { Child } from './harness/child.js';
import { cpuMs } from './harness/cpu.js';
import { randomTensors } from './harness/random.js';
import type { SingleNodeData, SingleNodeQuestion } from './harness/single-node.js';
import { Workers } from './harness/workers.js';
import { interleaved } from './statistics.js';

const WORKERS = 5;
const PARITY = 1;
const REQUESTS = 2;
const ROUNDS = 20;
/** Thirty requests: fewer leave much of the code uncompiled, and compiling is processor time too. */
const WARM_UP = 15;
const INPUT = [1, 3, 224, 224];
/** What coding multiplies by itself is n / k. */
const TARGET = (1.4 * WORKERS) / (WORKERS - PARITY);

export const model: Bench = {
  name: 'model',
  what: 'CPU time of a request to AlexNet, master and 5 workers, all layers coded',
  baseline: 'ONNX Runtime in one process, one thread',
  async run({ progress }) {
    const folder = await mkdtemp(path.join(tmpdir(), 'kofn-bench-'));
    try {
      const generate = fileURLToPath(new URL('../../models/generate.mjs', import.meta.url));
      await promisify(execFile)(process.execPath, [generate, 'alexnet', folder]);
      const file = path.join(folder, 'model.onnx');
      await using workers = await Workers.start(WORKERS);
      await using coded = await codedModel(file, { cluster: workers.cluster, parity: PARITY, layers: 'all' });
      const { name } = coded.inputs[0]!;
      await using single = await Child.start(new URL('./harness/single-node.js', import.meta.url), {
        model: file,
        input: name,
        inputShape: INPUT,
      } satisfies SingleNodeData);
      const inputs = { [name]: randomTensors(1)(INPUT) };
      const samples = await interleaved(
        {
          value: async () => {
            const before = cpuMs() + (await workers.cpuMs());
            for (let request = 0; request < REQUESTS; request++) await coded.run(inputs);
            await workers.settle(); // what cancelled calls still cost is theirs
            return (cpuMs() + (await workers.cpuMs()) - before) / REQUESTS;
          },
          baseline: async () =>
            (await single.ask<number>({ requests: REQUESTS } satisfies SingleNodeQuestion)) / REQUESTS,
        },
        { rounds: ROUNDS, warmUp: WARM_UP, progress },
      );
      return [figure({ name: 'CPU of a request', unit: 'ms', target: { atMost: TARGET } }, samples)];
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};
