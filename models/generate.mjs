/**
 * Writes a network of known shape with random weights as model.onnx and weights.bin: for tests and benchmarks of speed and
 * exactness, which depend on shapes and not on what a network has learnt. `--help` says how to run it.
 *
 * Invariants
 * 1. The bytes are a function of network, classes and seed alone.
 * 2. Weights are drawn and written a chunk at a time: memory does not grow with the network.
 * 3. A run that fails or is interrupted leaves nothing half-written, and never a model.onnx beside weights of another.
 * 4. Exit codes: 0 done, 1 the files could not be written, 2 bad arguments (nothing was touched), 128 + n after signal n.
 */
import { Buffer } from 'node:buffer';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import onnxProto from 'onnx-proto';
import { buildNetwork, NETWORKS } from './networks.mjs';

const { onnx } = onnxProto;

const MODEL = 'model.onnx';
const WEIGHTS = 'weights.bin';
const FLOAT = onnx.TensorProto.DataType.FLOAT;
/** Offsets in weights.bin are multiples of a page, so that ONNX Runtime can map tensors. */
const PAGE_BYTES = 4096;
/** Smaller tensors stand in the model. */
const EXTERNAL_BYTES = 1024;
const CHUNK_VALUES = 2 ** 20;
const CLEAR_LINE = '\r\u001b[K';
const MAX_SEED = 2 ** 32 - 1;
const MAX_CLASSES = 100_000;

const HELP = `Usage: node models/generate.mjs <network> <folder> [options]

Writes <folder>/${MODEL} and <folder>/${WEIGHTS}: the architecture of a well-known network with random weights.
It is untrained and recognises nothing.

Networks: ${Object.keys(NETWORKS).join(', ')}

Options:
  --seed <n>     other weights for another number (default: 0)
  --classes <n>  logits of an image (default: 1000)
  --json         print a JSON object
  --dry-run      write nothing and need no folder; print the JSON object
  -h, --help     print this

Example:
  $ node models/generate.mjs resnet18 /tmp/resnet18 --seed 7
  $ npx kofn plan /tmp/resnet18/model.onnx`;

class UsageError extends Error {}

/** The signal that asked this run to stop. */
let interruptedBy;

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (interruptedBy === undefined) {
    console.error(`generate.mjs: ${error.message.replace(/\s*\n\s*/g, ' ')}`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  } else {
    process.exitCode = 128 + constants.signals[interruptedBy];
  }
}

async function main(args) {
  const options = parse(args);
  if (options.help) {
    console.log(HELP);
    return;
  }
  const { name, folder, seed, classes } = options;
  const network = buildNetwork(name, classes);
  const external = layOut(network.tensors);
  const weightsBytes = external.length === 0 ? 0 : external.at(-1).offset + external.at(-1).bytes;
  const model = encode(name, network, seed);
  if (!options.dryRun) await write(folder, model, weightBytes(external, seed, progress(name, weightsBytes)));

  const parameters = network.tensors.reduce((sum, { trained, count }) => sum + (trained ? count : 0), 0);
  const bytes = model.byteLength + weightsBytes;
  if (options.json || options.dryRun) {
    console.log(JSON.stringify({ network: name, folder, seed, classes, parameters, bytes }));
  } else {
    const grouped = number => number.toLocaleString('en-US');
    console.log(`${folder}: ${name}, ${grouped(parameters)} random parameters, ${grouped(bytes)} bytes`);
  }
}

function parse(args) {
  const { values, positionals } = parseStrictly(args);
  if (values.help) return { help: true };
  const [name, folder, ...rest] = positionals;
  const names = Object.keys(NETWORKS);
  if (name === undefined)
    throw new UsageError(`give a network (${names.join(', ')}) and a folder; --help has an example`);
  if (!names.includes(name)) throw new UsageError(`network ${name}: give one of ${names.join(', ')}`);
  if (!folder && !values['dry-run']) throw new UsageError(`give a folder to write ${name} to`);
  if (rest.length > 0) throw new UsageError(`${rest.join(' ')}: give one network and one folder`);
  return {
    name,
    folder,
    seed: whole('--seed', values.seed, 0, MAX_SEED),
    classes: whole('--classes', values.classes, 1, MAX_CLASSES),
    json: values.json,
    dryRun: values['dry-run'],
  };
}

function parseStrictly(args) {
  const text = value => ({ type: 'string', default: value });
  const flag = { type: 'boolean', default: false };
  const options = {
    seed: text('0'),
    classes: text('1000'),
    json: flag,
    'dry-run': flag,
    help: { ...flag, short: 'h' },
  };
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (cause) {
    throw new UsageError(cause.message, { cause });
  }
}

function whole(option, text, min, max) {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(`${option} ${text}: give a whole number from ${min} to ${max}`);
}

/** Gives each tensor its count, its bytes and a number for its draws; returns those with an offset in weights.bin. */
function layOut(tensors) {
  let end = 0;
  for (const [index, tensor] of tensors.entries()) {
    tensor.index = index;
    tensor.count = tensor.dims.reduce((a, b) => a * b, 1);
    tensor.bytes = tensor.count * Float32Array.BYTES_PER_ELEMENT;
    if (tensor.bytes < EXTERNAL_BYTES) continue;
    tensor.offset = Math.ceil(end / PAGE_BYTES) * PAGE_BYTES;
    end = tensor.offset + tensor.bytes;
  }
  return tensors.filter(({ offset }) => offset !== undefined);
}

function encode(name, { nodes, tensors, input, output }, seed) {
  const model = onnx.ModelProto.create({
    irVersion: 7,
    opsetImport: [{ domain: '', version: 13 }],
    producerName: 'kofn random weights',
    docString: `The architecture of ${name} with random weights (seed ${seed}): the network is untrained.`,
    graph: {
      name,
      node: nodes.map(({ op, attributes, inputs, output: made, ...node }) => ({
        ...node,
        opType: op,
        input: inputs,
        output: [made],
        attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)),
      })),
      input: [valueInfo(input)],
      output: [valueInfo(output)],
      initializer: tensors.map(tensor => initializer(tensor, seed)),
    },
  });
  return onnx.ModelProto.encode(model).finish();
}

function attribute(name, value) {
  const { INT, INTS } = onnx.AttributeProto.AttributeType;
  return Array.isArray(value) ? { name, type: INTS, ints: value } : { name, type: INT, i: value };
}

function valueInfo({ name, dims }) {
  const dim = dims.map(size => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  return { name, type: { tensorType: { elemType: FLOAT, shape: { dim } } } };
}

function initializer(tensor, seed) {
  const { name, dims, offset, bytes } = tensor;
  if (offset === undefined) return { name, dims, dataType: FLOAT, rawData: Buffer.concat([...draw(tensor, seed)]) };
  const place = { location: WEIGHTS, offset, length: bytes };
  return {
    name,
    dims,
    dataType: FLOAT,
    dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
    externalData: Object.entries(place).map(([key, value]) => ({ key, value: String(value) })),
  };
}

/** The bytes of weights.bin in pieces, each of which is used up before the next is asked for. */
function* weightBytes(tensors, seed, report) {
  let end = 0;
  for (const tensor of tensors) {
    if (tensor.offset > end) yield new Uint8Array(tensor.offset - end);
    end = tensor.offset;
    for (const piece of draw(tensor, seed)) {
      if (interruptedBy !== undefined) throw new Error(`stopped by ${interruptedBy}`);
      yield piece;
      end += piece.byteLength;
      report(end);
    }
  }
}

/** The bytes of a tensor's values in pieces; each piece is overwritten by the next. */
function* draw({ index, count, low, high }, seed) {
  const values = new Float32Array(Math.min(count, CHUNK_VALUES));
  let state = scramble(scramble(seed) + index) || 1; // xorshift never leaves 0
  for (let done = 0; done < count; done += values.length) {
    const part = values.subarray(0, Math.min(values.length, count - done));
    state = fill(part, state, low, high);
    yield new Uint8Array(part.buffer, 0, part.byteLength);
  }
}

/** Fills `values` uniformly from `low` to `high` by xorshift32 (Marsaglia, 2003) and returns the generator's state. */
function fill(values, state, low, high) {
  const middle = (low + high) / 2;
  const scale = (high - low) / 2 ** 32;
  for (let i = 0; i < values.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    values[i] = middle + scale * state;
  }
  return state;
}

/** 32 bits, of which each depends on all those of `value`: the end of MurmurHash3 (A. Appleby), away from its fixed point 0. */
function scramble(value) {
  let bits = (value + 0x9e3779b9) | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** Both files are written aside first, in the folder itself so that renaming them is all that is left to do. */
async function write(folder, model, weights) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => (interruptedBy = signal));
  let made; // the outermost folder that was not there before
  let parts;
  try {
    made = await mkdir(folder, { recursive: true });
    parts = await mkdtemp(path.join(folder, '.part-'));
    await writeFile(path.join(parts, WEIGHTS), weights);
    await writeFile(path.join(parts, MODEL), model);
    // Whatever fails from here on, no model is left beside weights of another.
    await rm(path.join(folder, MODEL), { force: true });
    for (const file of [WEIGHTS, MODEL]) await rename(path.join(parts, file), path.join(folder, file));
    made = undefined;
  } catch (cause) {
    throw new Error(`cannot write ${folder}: ${cause.message}`, { cause });
  } finally {
    if (process.stderr.isTTY) process.stderr.write(CLEAR_LINE);
    for (const unfinished of [parts, made]) {
      if (unfinished !== undefined) await rm(unfinished, { recursive: true, force: true });
    }
  }
}

/** Says how far it is, where a person looks at it. */
function progress(name, total) {
  if (!process.stderr.isTTY) return () => undefined;
  return done => process.stderr.write(`${CLEAR_LINE}${name}: ${Math.floor((100 * done) / total)} % …`);
}
