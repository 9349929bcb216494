/**
 * Runs fashion-cnn.onnx in ONNX Runtime over all 10,000 test images of Debian's dataset-fashion-mnist, and compares its logits
 * with those that train-fashion-cnn.py kept:
 *
 *     node models/check-fashion-cnn.mjs LOGITS.npy
 *
 * Prints the accuracies and the largest difference; exits 1 when a predicted class differs or a logit by more than 1e-4.
 */
import { Buffer } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const DATA = '/usr/share/datasets/fashion-mnist/t10k-';
const PIXELS = 28 * 28;
const CLASSES = 10;
const BATCH = 500;
const TOLERANCE = 1e-4;

const here = name => fileURLToPath(new URL(name, import.meta.url));
const largest = row => row.indexOf(Math.max(...row));

/** The data of a version 1 .npy file, whose 16-bit header length stands at byte 8. */
function npyData(file) {
  const bytes = readFileSync(file);
  return Uint8Array.from(bytes.subarray(10 + bytes.readUInt16LE(8)));
}

const [logitsFile] = process.argv.slice(2);
if (!logitsFile)
  throw new Error('usage: node models/check-fashion-cnn.mjs LOGITS.npy (train-fashion-cnn.py --logits makes it)');
const images = gunzipSync(readFileSync(`${DATA}images-idx3-ubyte.gz`)).subarray(16);
const labels = gunzipSync(readFileSync(`${DATA}labels-idx1-ubyte.gz`)).subarray(8);
const expected = new Float32Array(npyData(logitsFile).buffer);
if (expected.length !== labels.length * CLASSES)
  throw new Error(`${logitsFile} has ${expected.length} logits, not 100000`);

const shipped = npyData(here('fashion-test-images.npy'));
const shippedLabels = npyData(here('fashion-test-labels.npy'));
const sameData =
  Buffer.compare(shipped, images.subarray(0, shipped.length)) === 0 &&
  Buffer.compare(shippedLabels, labels.subarray(0, shippedLabels.length)) === 0;

const session = await InferenceSession.create(here('fashion-cnn.onnx'), { intraOpNumThreads: 1 });
const right = { onnx: 0, torch: 0, shipped: 0 };
let classesDiffer = 0;
let maxDifference = 0;
for (let first = 0; first < labels.length; first += BATCH) {
  const pixels = Float32Array.from(images.subarray(first * PIXELS, (first + BATCH) * PIXELS), value => value / 255);
  const { logits } = await session.run({ image: new Tensor('float32', pixels, [BATCH, 1, 28, 28]) });
  for (let i = 0; i < BATCH; i++) {
    const actual = logits.data.subarray(i * CLASSES, (i + 1) * CLASSES);
    const wanted = expected.subarray((first + i) * CLASSES, (first + i + 1) * CLASSES);
    // Math.max keeps a NaN, which the last comparison then refuses.
    actual.forEach((value, j) => (maxDifference = Math.max(maxDifference, Math.abs(value - wanted[j]))));
    const label = labels[first + i];
    classesDiffer += largest(actual) === largest(wanted) ? 0 : 1;
    right.torch += largest(wanted) === label ? 1 : 0;
    right.onnx += largest(actual) === label ? 1 : 0;
    if (first + i < shippedLabels.length) right.shipped += largest(actual) === label ? 1 : 0;
  }
}
await session.release();

const ok = sameData && classesDiffer === 0 && maxDifference <= TOLERANCE;
const report = {
  ok,
  shippedImagesAreTheFirst: sameData,
  testAccuracy: { onnxRuntime: right.onnx / labels.length, torch: right.torch / labels.length },
  shippedAccuracy: right.shipped / shippedLabels.length,
  classesDiffer,
  maxLogitDifference: maxDifference,
};
console.log(JSON.stringify(report, null, 2));
process.exitCode = ok ? 0 : 1;
