// One fully-connected layer on five workers: its output comes from whichever four answer first.
//   node examples/01-coded-layer.mjs
import { codedLayer, connect, startLocalWorkers } from 'kofn';

// Five worker processes on this machine. On a cluster: workers = ['pi1', 'pi2', …], where `kofn worker` runs.
const workers = await startLocalWorkers(5);
const cluster = await connect({ workers: workers.addresses });

// output = relu(weights · input + bias), 8 outputs of 3 inputs
const weights = Array.from({ length: 8 }, (_, row) => [row, 1, -row]);
const bias = new Array(8).fill(0.5);
const layer = await codedLayer({ type: 'dense', weights, bias, activation: 'relu' }, { cluster, parity: 1 });

const { output, report } = await layer.run([[3, 2, 1]]);
console.log('output', [...output.data].join(' '));

const [{ code, k, r, arrivals, decodeSet, recovered, errorGain }] = report.layers;
console.log(`${code} code, k = ${k} data blocks, r = ${r} parity block`);
for (const { worker, ms } of arrivals) console.log(`worker ${worker} answered after ${ms.toFixed(2)} ms`);
console.log(
  `decoded from blocks ${decodeSet.join(', ')}; late: ${recovered.late.join(', ') || 'none'}; error gain ${errorGain}`,
);

await layer.close();
await cluster.close();
await workers.close();
