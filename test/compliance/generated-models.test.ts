/** models/generate.mjs: its networks have the published sizes, load, run with sane numbers, and are the same for a seed. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, watch } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { elementCount, seededRng } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { findCodable, loadModel, type OnnxModel } from '@kofn/graph';
import { after, before, describe, it } from 'mocha';
import { ended, json, ROOT, Sandbox, type Ended } from '../e2e/command.js';
import { drawn } from '../support/onnx-models.js';

const SCRIPT = path.join(ROOT, 'models', 'generate.mjs');
/** Trainable parameters, as torchvision publishes them. */
const PARAMETERS = { alexnet: 61_100_840, vgg16: 138_357_544, resnet18: 11_689_512, resnet50: 25_557_032 };
const PAGE_BYTES = 4096;

interface Report {
  network: string;
  folder?: string;
  seed: number;
  classes: number;
  parameters: number;
  bytes: number;
}

describe('generated models', () => {
  let sandbox: Sandbox;
  let engine: Engine;
  const folder = (name: string) => path.join(sandbox.files, name);
  const generate = (...args: string[]) => ended(sandbox.start(args, SCRIPT));
  before(async () => {
    sandbox = new Sandbox();
    engine = await createEngine('native');
  });
  after(async () => {
    await engine[Symbol.asyncDispose]();
    sandbox[Symbol.dispose]();
  });

  for (const [network, parameters] of Object.entries(PARAMETERS)) {
    it(`${network} has ${parameters} parameters; a dry run writes nothing`, async () => {
      const { folder: none, bytes, ...report } = json<Report>(await generate(network, '--dry-run'));
      assert.deepEqual(report, { network, seed: 0, classes: 1000, parameters });
      assert.equal(none, undefined);
      assert.ok(bytes >= 4 * parameters, `${bytes} bytes`);
      assert.equal(json<Report>(await generate(network, folder('dry'), '--dry-run')).bytes, bytes);
      assert.ok(!existsSync(folder('dry')));
    });
  }

  for (const [network, layers] of [
    ['resnet18', ['conv1', 'layer1.0.conv2', 'layer2.0.downsample.0', 'layer4.1.conv2', 'fc']],
    ['alexnet', ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8']],
  ] as const) {
    it(`${network} loads, can be coded in every linear layer, and runs`, async () => {
      await using generated = await generatedModel(network);
      const { model, report } = generated;
      assert.equal(parametersOf(model), PARAMETERS[network]);
      assert.equal(report.parameters, PARAMETERS[network]);
      assert.deepEqual(model.inputs, [{ name: 'image', dtype: 'float32', shape: ['N', 3, 224, 224] }]);
      assert.deepEqual(model.outputs, [{ name: 'logits', dtype: 'float32', shape: ['N', 1000] }]);
      assert.equal(model.proto.producerName, 'kofn random weights');
      assert.match(model.proto.docString ?? '', /random weights.*untrained/);
      assertLaidOut(model);

      const found = findCodable(model);
      assert.ok(found.every(({ codable }) => codable));
      const names = found.map(({ node }) => node);
      for (const layer of layers) assert.ok(names.includes(layer), `${layer} in ${names.join()}`);

      const rng = seededRng(5);
      await using session = await engine.open(generated.folder);
      const { logits } = await session.run({ image: drawn([2, 3, 224, 224], () => rng.normal()) });
      assert.deepEqual(logits!.shape, [2, 1000]);
      const values = logits!.data as Float32Array;
      assert.ok(values.every(Number.isFinite));
      assert.ok(new Set(values).size > 1900, 'logits differ, between images too');
      const size = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
      assert.ok(size > 0.01 && size < 1000, `root mean square ${size}`);
    });
  }

  it('are the same bytes for the same seed, others for another, in place of what was there', async () => {
    const hashes: string[][] = [];
    for (const seed of ['7', '7', '8']) {
      const { code, stdout, stderr } = await generate('resnet18', folder('again'), '--seed', seed);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^\S+again: resnet18, 11,689,512 random parameters, 46,\d{3},\d{3} bytes\n$/);
      assert.equal(stderr, '', 'progress is for terminals');
      assert.deepEqual(readdirSync(folder('again')).sort(), ['model.onnx', 'weights.bin']);
      hashes.push(['model.onnx', 'weights.bin'].map(name => hash(path.join(folder('again'), name))));
    }
    const [first, same, other] = hashes;
    assert.deepEqual(same, first);
    for (const index of [0, 1]) assert.notEqual(other![index], first![index]);
  });

  it('have as many logits as asked for', async () => {
    const { classes, parameters } = json<Report>(await generate('resnet18', '--classes', '10', '--dry-run'));
    assert.deepEqual([classes, parameters], [10, PARAMETERS.resnet18 - 990 * (512 + 1)]);
  });

  it('--help has an example', async () => {
    const { code, stdout, stderr } = await generate('--help');
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /Example:\n {2}\$ node models\/generate\.mjs resnet18 /);
  });

  const refused: [what: string, args: string[], message: RegExp][] = [
    ['no network', [], /give a network \(alexnet, vgg16, resnet18, resnet50\)/],
    ['an unknown network', ['lenet', 'refused'], /network lenet: give one of alexnet,/],
    ['no folder', ['alexnet'], /give a folder to write alexnet to/],
    ['two folders', ['alexnet', 'refused', 'more'], /more: give one network and one folder/],
    ['a seed that is no number', ['alexnet', 'refused', '--seed', 'x'], /--seed x: give a whole number from 0 to/],
    ['a negative seed', ['alexnet', 'refused', '--seed', '-1'], /'--seed'/],
    ['a seed too large', ['alexnet', 'refused', '--seed', '4294967296'], /--seed 4294967296: .* to 4294967295/],
    ['no classes', ['alexnet', 'refused', '--classes', '0'], /--classes 0: give a whole number from 1 to/],
    ['an unknown option', ['alexnet', 'refused', '--colour'], /'--colour'/],
  ];
  for (const [what, [network, place, ...rest], message] of refused) {
    it(`${what} is refused with one line and exit code 2`, async () => {
      const args = [network, place === undefined ? place : folder(place), ...rest];
      const outcome = await generate(...args.filter(text => text !== undefined));
      assertFailed(outcome, 2, message);
      assert.ok(!existsSync(folder('refused')));
    });
  }

  it('a model that cannot be put in its place leaves nothing: exit 1', async () => {
    mkdirSync(path.join(folder('taken'), 'model.onnx'), { recursive: true });
    assertFailed(await generate('resnet18', folder('taken')), 1, /cannot write \S+taken: /);
    assert.deepEqual(readdirSync(folder('taken')), ['model.onnx']);
  });

  it('a folder that cannot be one is named: exit 1', async () => {
    assertFailed(await generate('resnet18', path.join(SCRIPT, 'below')), 1, /cannot write \S+below: ENOTDIR/);
  });

  it('an interrupted run leaves nothing: exit 130', async () => {
    mkdirSync(folder('interrupted'));
    const watcher = watch(folder('interrupted'));
    const child = sandbox.start(['vgg16', folder('interrupted')], SCRIPT);
    const end = ended(child);
    await Promise.race([
      once(watcher, 'change'), // the first file is about to be written
      end.then(({ stderr }) => assert.fail(`it ended before it wrote anything: ${stderr}`)),
    ]);
    watcher.close();
    child.kill('SIGINT');
    assert.deepEqual(await end, { code: 130, stdout: '', stderr: '' });
    assert.deepEqual(readdirSync(folder('interrupted')), []);
  });

  async function generatedModel(network: string) {
    const place = folder(network);
    const report = json<Report>(await generate(network, place, '--seed', '3', '--json'));
    assert.equal(report.folder, place);
    const model = await loadModel(path.join(place, 'model.onnx'));
    const sizes = ['model.onnx', 'weights.bin'].map(name => statSync(path.join(place, name)).size);
    assert.equal(report.bytes, sizes[0]! + sizes[1]!);
    return { model, report, folder: place, [Symbol.asyncDispose]: () => rm(place, { recursive: true }) };
  }
});

/** Elements of the constants that training changes: of all but the statistics of BatchNormalization. */
function parametersOf(model: OnnxModel): number {
  const trained = [...model.constants].filter(([name]) => !/\.running_(mean|var)$/.test(name));
  return trained.reduce((sum, [, { dims }]) => sum + elementCount((dims ?? []).map(Number)), 0);
}

/** Small tensors stand in the model; the others in weights.bin, each from the start of a page. */
function assertLaidOut(model: OnnxModel): void {
  for (const [name, { dims, externalData, rawData }] of model.constants) {
    const bytes = 4 * elementCount((dims ?? []).map(Number));
    const place = new Map((externalData ?? []).map(({ key, value }) => [key, value]));
    if (bytes < 1024) {
      assert.deepEqual([place.size, rawData?.length], [0, bytes], name);
    } else {
      assert.deepEqual([place.get('location'), place.get('length')], ['weights.bin', String(bytes)], name);
      assert.equal(Number(place.get('offset')) % PAGE_BYTES, 0, name);
    }
  }
}

function assertFailed({ code, stdout, stderr }: Ended, expected: number, message: RegExp): void {
  assert.deepEqual([code, stdout], [expected, ''], stderr);
  assert.match(stderr, /^generate\.mjs: [^\n]+\n$/, 'one line');
  assert.match(stderr, message);
}

function hash(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
