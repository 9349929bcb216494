// A trained network on a cluster: its plan, a picture through it, and the same picture in ONNX Runtime.
//   node examples/02-local-cluster.mjs
import { readFileSync } from 'node:fs';
import { codedModel, connect, float32, startLocalWorkers } from 'kofn';
import { InferenceSession, Tensor } from 'onnxruntime-node';

/** @param {string} name */
const model = name => new URL(`../models/${name}`, import.meta.url);
const path = model('fashion-cnn.onnx').pathname;
const names = readFileSync(model('fashion-labels.txt'), 'utf8').trim().split('\n');

const workers = await startLocalWorkers(5);
const cluster = await connect({ workers: workers.addresses });
const coded = await codedModel(path, { cluster, parity: 2, layers: 'all' });
for (const { name, reason } of coded.plan.layers) console.log(`${name}: ${reason}`);

// The first test image: 28x28 bytes behind the 128-byte header of the .npy file.
const pixels = Float32Array.from(
  readFileSync(model('fashion-test-images.npy')).subarray(128, 128 + 784),
  byte => byte / 255,
);
const { outputs, report } = await coded.run({ image: float32([1, 1, 28, 28], pixels) }, { deadlineMs: 10_000 });
const logits = /** @type {Float32Array} */ (outputs.logits.data);
console.log(`class: ${names[logits.indexOf(Math.max(...logits))]}, in ${report.ms.toFixed(1)} ms`);

const session = await InferenceSession.create(path);
const uncoded = await session.run({ image: new Tensor('float32', pixels, [1, 1, 28, 28]) });
const expected = /** @type {Float32Array} */ (uncoded.logits.data);
const difference = Math.max(...logits.map((value, i) => Math.abs(value - expected[i])));
console.log(`largest difference to ONNX Runtime: ${difference.toExponential(1)}`);

await coded.close();
await cluster.close();
await workers.close();
