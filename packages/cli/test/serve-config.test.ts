import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'mocha';
import { serve } from '../src/commands/serve.js';
import { variableOf } from '../src/serve/config.js';
import { modelFiles, parseLabels, parseModel } from '../src/serve/models.js';

const code = { layers: 'all', segments: 'local', verify: 'none', onLoss: 'local' } as const;
const args = { ...code, engine: 'auto', threads: 1 } as const;
const about = { version: '0' };

describe('what kofn serve is told', () => {
  let folder: string;
  const at = (name: string) => path.join(folder, name);

  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'kofn-serve-config-'));
    writeFileSync(at('my model.onnx'), '');
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
  });

  it('what does not fit together is refused before anything starts', async () => {
    const model = { version: 1, file: at('my model.onnx') };
    const cases: [object, RegExp][] = [
      [{}, /no workers: give --workers .* or --local N/],
      [{ local: 2, workers: ['a:1'] }, /not both/],
      [{ local: 2, http: 'here' }, /--http here: must be HOST:PORT/],
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

  it('a variable of the environment is the option in capitals', () => {
    assert.equal(variableOf('maxQueue'), 'KOFN_MAX_QUEUE');
  });
});
