import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'mocha';
import onnxProto from 'onnx-proto';
import { serve } from '../src/serve/serve.js';
import { serveCommand } from '../src/serve/command.js';
import { readServeConfig, settle } from '../src/serve/config.js';
import { serveConfigSchema } from '../src/serve/config-schema.js';
import { parseShape } from '../src/options/arguments.js';
import { modelFiles, parseLabels, parseModel } from '../src/serve/models.js';

/** y = relu(x). */
function reluModel(shape: readonly (string | number)[]): Uint8Array {
  const { onnx } = onnxProto;
  const dim = shape.map(size => (typeof size === 'string' ? { dimParam: size } : { dimValue: size }));
  const value = (name: string) => ({ name, type: { tensorType: { elemType: 1, shape: { dim } } } });
  const node = [{ opType: 'Relu', input: ['x'], output: ['y'] }];
  const graph = { name: 'relu', node, input: [value('x')], output: [value('y')] };
  return onnx.ModelProto.encode({ irVersion: 8, opsetImport: [{ version: 13 }], graph }).finish();
}

const code = { layers: 'all', segments: 'local', verify: 'none', onLoss: 'local' } as const;
const args = { ...code, engine: 'auto', threads: 1 } as const;
const about = { version: '0' };

describe('what kofn serve is told', () => {
  let folder: string;
  const at = (name: string) => path.join(folder, name);

  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'kofn-serve-config-'));
    writeFileSync(at('my model.onnx'), reluModel(['N', 2]));
    writeFileSync(at('labels.txt'), 'boot\nshirt\n');
  });
  after(() => rmSync(folder, { recursive: true }));

  it('a model is FILE, NAME=FILE or NAME:VERSION=FILE', () => {
    assert.deepEqual(parseModel('a/b.onnx'), { version: 1, file: 'a/b.onnx' });
    assert.deepEqual(parseModel('m=a=b.onnx'), { name: 'm', version: 1, file: 'a=b.onnx' });
    assert.deepEqual(parseModel('m:12=b.onnx'), { name: 'm', version: 12, file: 'b.onnx' });
    assert.deepEqual(parseModel('./m=b.onnx'), { version: 1, file: './m=b.onnx' });
  });

  it('models take their name from the file, labels from flags, and what they do not say from all', async () => {
    const labels = parseLabels(at('labels.txt'));
    const [one] = await modelFiles([{ version: 1, file: at('my model.onnx'), parity: 2 }], {
      ...code,
      parity: 1,
      labels,
    });
    assert.deepEqual([one!.name, one!.labels, one!.options?.parity], ['my-model', ['boot', 'shirt'], 2]);
    const two = [{ name: 'a', version: 1, file: at('my model.onnx') }, { name: 'b', version: 1, file: at('my model.onnx') }]; // prettier-ignore
    await assert.rejects(modelFiles(two, { ...code, labels }), { message: /give NAME=FILE with one of a, b/ });
    const named = await modelFiles(two, { ...code, labels: parseLabels(`b=${at('labels.txt')}`) });
    assert.deepEqual(
      named.map(model => model.labels?.length),
      [undefined, 2],
    );
    writeFileSync(at('many.txt'), 'boot\nshirt\nbag\n');
    await assert.rejects(modelFiles(two, { ...code, labels: parseLabels(`a=${at('many.txt')}`) }), {
      code: 'INVALID_ARGUMENT',
      message: /many\.txt has 3 lines, and .*my model\.onnx no output with as many values, but "y" \[N, 2\]/,
    });
  });

  it('an input whose sizes are open is planned with as it is told', async () => {
    const file = at('open.onnx');
    writeFileSync(file, reluModel(['N', 'C', 'H', 'W']));
    const shape = parseShape('x=1,3,8,8');
    const [one] = await modelFiles([{ version: 1, file }], { ...code, shape });
    assert.deepEqual(one!.options?.sampleInputs?.['x']?.shape, [1, 3, 8, 8]);
    const [other] = await modelFiles([{ version: 1, file, shapes: { x: [2, 3, 4, 4] } }], { ...code, shape });
    assert.deepEqual(other!.options?.sampleInputs?.['x']?.shape, [2, 3, 4, 4]);
    assert.throws(() => parseShape('x=a'), { message: /give INPUT=SIZES/ });
  });

  it('what does not fit together is refused before anything starts', async () => {
    const model = { version: 1, file: at('my model.onnx') };
    const cases: [object, RegExp][] = [
      [{}, /no workers: give --workers .* or --local N/],
      [{ local: 2, workers: ['a:1'] }, /not both/],
      [{ local: 2, http: 'here:http' }, /--http: "here:http" has the port http; give one port from 0 to 65535/],
      [{ workers: ['a', 'b/c'] }, /workers: "b\/c" has a path; give b/],
      [{ local: 2, maxMessage: 'much' }, /--max-message much: must be a size/],
      [{ local: 2, tlsCert: '/c' }, /both --tls-cert and --tls-key/],
      [{ local: 2, tokenFile: '/no/token' }, /--token-file \/no\/token: cannot be read \(ENOENT\)/],
      [{ local: 2, models: [{ ...model, file: '/none.onnx' }] }, /model none: \/none\.onnx cannot be read \(ENOENT\)/],
      [{ local: 2, labels: parseLabels('x=/l') }, /--labels x=\/l: give NAME=FILE with one of my-model/],
    ];
    for (const [more, message] of cases) {
      await assert.rejects(serve({ ...args, models: [model], ...more }, about), { message }, message.source);
    }
  });

  it('flags come before the environment, and that before the file', async () => {
    const file = at('serve.yaml');
    writeFileSync(
      file,
      'local: 3\nparity: 2\nmaxQueue: 7\nmaxBatch: 4\ndeadline: 100\ntokenFile: t\nmodels: [{ file: m.onnx }]\n',
    );
    const config = await readServeConfig(file);
    assert.deepEqual(config.models, [{ version: 1, file: at('m.onnx'), labels: undefined }]);
    const settled = (flags: string[], env: Record<string, string>) => {
      const command = serveCommand(about, () => undefined);
      command.parseOptions(flags);
      settle(command, config, env);
      return command.opts<Record<string, unknown>>();
    };
    const env = { KOFN_MAX_BATCH: '8', KOFN_DEADLINE: '200', KOFN_INSECURE: 'false', KOFN_WORKERS: 'a:1,b:2' };
    const all = settled(['--deadline', '300'], env);
    const { deadline, maxBatch, maxQueue, parity, insecure, tokenFile, workers, engine } = all;
    assert.deepEqual([deadline, maxBatch, maxQueue, parity, insecure], [300, 8, 7, 2, false]);
    assert.deepEqual([tokenFile, workers, engine], [at('t'), ['a:1', 'b:2'], 'auto']);
    const wrong = { message: 'KOFN_MAX_QUEUE: --max-queue 0: give a whole number from 1 to 65536' };
    assert.throws(() => settled([], { KOFN_MAX_QUEUE: '0' }), wrong);
    assert.throws(() => settled([], { KOFN_INSECURE: 'maybe' }), {
      message: /KOFN_INSECURE maybe: give true or false/,
    });
  });

  it('a file with a mistake is refused with every one of them by name', async () => {
    writeFileSync(at('wrong.yaml'), 'models:\n  - file: m.onnx\n    paritty: 2\nmaxQueue: 0\n');
    const message = /wrong\.yaml: models\[0\]\.paritty: there is no such field; maxQueue: /;
    await assert.rejects(readServeConfig(at('wrong.yaml')), { code: 'INVALID_ARGUMENT', message });
    await assert.rejects(readServeConfig(at('none.yaml')), { code: 'NOT_FOUND' });
  });

  it('each option says what it is, has a flag, and stands in docs/serving.md', () => {
    const text = readFileSync(new URL('../../../../docs/serving.md', import.meta.url), 'utf8');
    const flags = serveCommand(about, () => undefined).options.map(option => option.attributeName());
    for (const [name, schema] of Object.entries(serveConfigSchema.shape)) {
      assert.ok(schema.unwrap().description, name);
      assert.ok(text.includes(`| \`${name}\``), `${name} in docs/serving.md`);
      assert.ok(name === 'models' || flags.includes(name), `a flag for ${name}`);
    }
  });
});
