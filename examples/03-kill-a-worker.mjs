// A worker dies in the middle of a stream of requests. Every answer stays the same; the reports tell what happened.
//   node examples/03-kill-a-worker.mjs
import { codedLayer, connect, startLocalWorkers } from 'kofn';

const workers = await startLocalWorkers(5);
const cluster = await connect({ workers: workers.addresses });
const weights = Array.from({ length: 64 }, (_, row) =>
  Array.from({ length: 64 }, (_, column) => Math.sin(row * column)),
);
const layer = await codedLayer({ type: 'dense', weights }, { cluster, parity: 1 });

const input = [Array.from({ length: 64 }, (_, i) => Math.cos(i))];
const first = (await layer.run(input)).output.data;
let [lost, different] = [0, 0];
for (let request = 1; request <= 200; request++) {
  if (request === 100) void workers.kill(2); // not awaited: it dies while the next requests are on their way
  const { output, report } = await layer.run(input);
  const error = Math.max(...output.data.map((value, i) => Math.abs(value - first[i])));
  if (error > 1e-4) different++;
  if (report.layers[0].recovered.lost.length > 0) lost++;
}
console.log(`200 requests, all answered; ${different} differ from the first`);
console.log(`${lost} were decoded without the dead worker's block`);
console.log('workers:', cluster.workers.map(({ address, state }) => `${address} ${state}`).join(', '));

await layer.close();
await cluster.close();
await workers.close();
