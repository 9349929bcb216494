/**
 * small-calls: processor time of one coded call of a small layer, master and workers together, against what the same calls cost
 * bare. The layers are those of the Fashion CNN, each a `codedLayer` of its own: the model's local segments are then in
 * neither side, and a call is one input to five workers and the first four replies.
 */
import { fileURLToPath } from 'node:url';
import { findCodable, layerModel, loadModel } from '@kofn/graph';
import { codedLayer, planModel, type CodedLayer, type Float32Tensor } from 'kofn';
import { figure, type Bench } from './bench.js';
import { BareEngines } from './harness/bare-engines.js';
import type { BareClientData, BareClientQuestion } from './harness/bare-client.js';
import { Child } from './harness/child.js';
import { cpuMs } from './harness/cpu.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';
import { interleaved } from './statistics.js';

const WORKERS = 5;
const PARITY = 1;
/** A pass calls each layer once. */
const PASSES = 10;
const ROUNDS = 30;
const WARM_UP = 10;
const MODEL = fileURLToPath(new URL('../../models/fashion-cnn.onnx', import.meta.url));

export const smallCalls: Bench = {
  name: 'small-calls',
  what: 'CPU time of a coded call of the Fashion CNN, master and 5 workers',
  baseline: 'the same shards and inputs in bare ONNX Runtime behind bare grpc-js',
  async run({ progress }) {
    await using workers = await Workers.start(WORKERS);
    await using engines = await BareEngines.start(WORKERS);
    const random = randomTensors(1);
    const { layers: planned } = await planModel(MODEL, { workerCount: WORKERS, parity: PARITY, layers: 'all' });
    const layers: { coded: CodedLayer; input: Float32Tensor }[] = [];
    for (const found of findCodable(await loadModel(MODEL))) {
      if (!found.codable) continue;
      const { node } = found;
      const spec = { onnx: layerModel(found.layer()), node };
      const coded = await codedLayer(spec, { cluster: workers.cluster, parity: PARITY });
      layers.push({ coded, input: random(planned.find(({ name }) => name === node)!.inputShape!) });
    }
    const inputShapes = layers.map(({ input }) => input.shape);
    await engines.open(workers, inputShapes);
    await using client = await Child.start(new URL('./harness/bare-client.js', import.meta.url), {
      addresses: engines.addresses,
      count: WORKERS - PARITY,
      inputShapes,
    } satisfies BareClientData);
    const calls = PASSES * layers.length;
    const samples = await interleaved(
      {
        value: async () => {
          const before = cpuMs() + (await workers.cpuMs());
          for (let pass = 0; pass < PASSES; pass++) for (const { coded, input } of layers) await coded.run(input);
          await workers.settle(); // what cancelled calls still cost is theirs
          return (cpuMs() + (await workers.cpuMs()) - before) / calls;
        },
        baseline: async () => {
          const before = await engines.cpuMs();
          const ofClient = await client.ask<number>({ passes: PASSES } satisfies BareClientQuestion);
          return (ofClient + (await engines.cpuMs()) - before) / calls;
        },
      },
      { rounds: ROUNDS, warmUp: WARM_UP, progress },
    );
    return [figure({ name: 'CPU of a call', unit: 'ms', target: { atMost: 1.5 } }, samples)];
  },
};
