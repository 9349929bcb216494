/** The protocol over HTTP: what is answered is what ONNX Runtime answers, and every status that docs/serving.md names. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { float32, type Tensor } from '@kofn/core';
import { datatypeOf, encodeTensors } from '@kofn/wire';
import { startServer, type EndedRequest } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { answerOf, EVERY_TYPE, mlp, ModelFolder, pickModel, rows, typesModel } from '../support/served-models.js';
import { serving, type Reply, type Serving } from '../support/serving.js';

interface Output {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly data?: readonly number[];
  readonly parameters?: { readonly binary_data_size: number };
}

const outputsOf = ({ json }: Pick<Reply, 'json'>) => json['outputs'] as Output[];
const input = (name: string, { dtype, shape, data }: Tensor, more: object = { data: [...data] }) => ({
  name,
  datatype: datatypeOf(dtype),
  shape,
  ...more,
});
const NO_MODEL = '/v2/models/other/infer';

describe('the Open Inference Protocol over HTTP', () => {
  const folder = new ModelFolder();
  const model = mlp(1);
  const { x } = rows(2, 7) as { x: Tensor };
  let t: Serving;
  let expected: number[];

  before(async () => {
    const models = [
      { name: 'mlp', version: '1', file: folder.write('mlp.onnx', model) },
      { name: 'mlp', version: '3', file: folder.write('mlp3.onnx', mlp(3)) },
      { name: 'pick', version: '1', file: folder.write('pick.onnx', pickModel) },
      { name: 'types', version: '1', file: folder.write('types.onnx', typesModel) },
    ];
    t = await serving({ models, maxMessageBytes: 100_000 });
    expected = [...((await answerOf(model, { x }))['y']!.data as Float32Array)];
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const infer = (body: unknown, path = '/v2/models/mlp/versions/1/infer', headers?: Record<string, string>) =>
    t.post(path, body, headers);

  function assertAnswer(values: ArrayLike<number>): void {
    assert.equal(values.length, expected.length);
    expected.forEach((value, i) =>
      assert.ok(Math.abs(values[i]! - value) <= 1e-4 * Math.max(1, Math.abs(value)), `value ${i}`),
    );
  }

  it('tells of the server and its models', async () => {
    assert.deepEqual((await t.get('/v2')).json['name'], 'kofn');
    for (const path of [
      '/v2/health/live',
      '/v2/health/ready',
      '/v2/models/mlp/ready',
      '/v2/models/mlp/versions/1/ready',
    ]) {
      assert.equal((await t.get(path)).status, 200, path);
    }
    assert.deepEqual((await t.get('/v2/models/mlp')).json, {
      name: 'mlp',
      versions: ['1', '3'],
      platform: 'kofn_onnx',
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 16] }],
      outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 16] }],
    });
  });

  it('answers flat and nested JSON and binary data with what ONNX Runtime gives, and says what coding did', async () => {
    const flat = await infer({ id: 'my request', inputs: [input('x', x)] });
    assert.equal(flat.status, 200, flat.body.toString());
    const { model_name: name, model_version: version, id, parameters } = flat.json;
    assert.deepEqual([name, version, id], ['mlp', '1', 'my request']);
    const facts = parameters as Record<string, unknown>;
    assert.deepEqual([facts['kofn_k'], facts['kofn_n'], facts['kofn_lost'], facts['kofn_local']], [2, 3, 0, 0]);
    assert.match(String(facts['kofn_decode_set']), /^[012],[012];[012],[012]$/);
    assert.ok(Number(facts['kofn_error_gain']) >= 1 && Number(facts['kofn_recovered']) <= 2);
    assertAnswer(outputsOf(flat)[0]!.data!);

    const all = [...(x.data as Float32Array)];
    const nested = await infer({ inputs: [input('x', x, { data: [all.slice(0, 16), all.slice(16)] })] });
    assertAnswer(outputsOf(nested)[0]!.data!);
    assert.match(String(nested.json['id']), /^[\da-f-]{36}$/); // one was made

    const json = JSON.stringify({
      inputs: [input('x', x, { parameters: { binary_data_size: x.data.length * 4 } })],
      outputs: [{ name: 'y', parameters: { binary_data: true } }],
    });
    const bytes = Buffer.from((x.data as Float32Array).buffer);
    const binary = await infer(Buffer.concat([Buffer.from(json), bytes]), undefined, {
      'inference-header-content-length': String(json.length),
    });
    const headBytes = Number(binary.headers['inference-header-content-length']);
    const head = JSON.parse(binary.body.subarray(0, headBytes).toString()) as Record<string, unknown>;
    const [output] = outputsOf({ json: head });
    assert.deepEqual(
      [output!.datatype, output!.shape, output!.parameters],
      ['FP32', [2, 16], { binary_data_size: 128 }],
    );
    assertAnswer(new Float32Array(Uint8Array.from(binary.body.subarray(headBytes)).buffer));
  });

  it('takes the highest version where a request names none', async () => {
    assert.equal((await infer({ inputs: [input('x', x)] }, '/v2/models/mlp/infer')).json['model_version'], '3');
  });

  it('carries every type, 64-bit integers to the last digit', async () => {
    const text = (value: unknown) =>
      JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? `#${each}#` : each));
    const entries = Object.entries(EVERY_TYPE);
    const half = encodeTensors({ float16: EVERY_TYPE.float16 }).raw[0]!;
    const inputs = entries.map(([name, value]) => {
      if (value.dtype === 'float16') return input(name, value, { parameters: { binary_data_size: half.byteLength } });
      const data = value.dtype === 'bool' ? Array.from(value.data as Uint8Array, Boolean) : [...value.data];
      return input(name, value, { data });
    });
    const json = text({ inputs, outputs: entries.map(([name, { dtype }]) => ({ name: `out_${name}`, parameters: { binary_data: dtype === 'float16' } })) }).replace(/"#(-?\d+)#"/g, '$1'); // prettier-ignore
    const reply = await infer(Buffer.concat([Buffer.from(json), half]), '/v2/models/types/infer', {
      'inference-header-content-length': String(Buffer.byteLength(json)),
    });
    assert.equal(reply.status, 200, reply.body.toString());
    const headBytes = Number(reply.headers['inference-header-content-length']);
    const head = reply.body.subarray(0, headBytes).toString();
    assert.ok(head.includes('[-9223372036854775808,9223372036854775807]') && head.includes('[0,18446744073709551615]'));
    for (const { name, data } of outputsOf({ json: JSON.parse(head) as Record<string, unknown> })) {
      const { dtype, data: given } = EVERY_TYPE[name.slice(4) as keyof typeof EVERY_TYPE];
      if (dtype === 'int64' || dtype === 'uint64' || dtype === 'float16') continue;
      assert.deepEqual(data, dtype === 'bool' ? [true, false] : [...given], name);
    }
    assert.deepEqual(reply.body.subarray(headBytes), Buffer.from(half));

    const raw = encodeTensors(EVERY_TYPE).raw;
    const binary = JSON.stringify({
      inputs: entries.map(([name, value], at) =>
        input(name, value, { parameters: { binary_data_size: raw[at]!.byteLength } }),
      ),
      parameters: { binary_data_output: true },
    });
    const same = await infer(Buffer.concat([Buffer.from(binary), ...raw]), '/v2/models/types/infer', {
      'inference-header-content-length': String(Buffer.byteLength(binary)),
    });
    assert.deepEqual(same.body.subarray(Number(same.headers['inference-header-content-length'])), Buffer.concat(raw));
  });

  it('refuses with the right status and words, and answers the next', async () => {
    const withX = (more: object) => ({ inputs: [{ ...input('x', x), ...more }] });
    const cases: [number, RegExp, unknown, (string | undefined)?, Record<string, string>?][] = [
      [400, /no JSON/, Buffer.from('{"inputs": [')],
      [400, /inputs/, {}],
      [400, /inputs\[0\].shape/, withX({ shape: ['a'] })],
      [400, /"x" has shape \[N,16\] in the model, got \[4,8\]/, withX({ shape: [4, 8] })],
      [400, /32 values, and its shape \[3,16\] takes 48/, withX({ shape: [3, 16] })],
      [400, /nor is it flat/, withX({ data: [[1, 2], [3]] })],
      [400, /"x" is float32 in the model, got float64/, withX({ datatype: 'FP64' })],
      [400, /no datatype "FP8"/, withX({ datatype: 'FP8' })],
      [400, /1e\+39 is no float32/, withX({ data: [1e39, ...[...x.data].slice(1)] })],
      [400, /"seven" is no float32/, withX({ data: ['seven', ...[...x.data].slice(1)] })],
      [
        400,
        /300 is no int8/,
        { inputs: [{ name: 'int8', datatype: 'INT8', shape: [1], data: [300] }] },
        '/v2/models/types/infer',
      ],
      [400, /float16 has no form in JSON/, { inputs: [{ name: 'h', datatype: 'FP16', shape: [1], data: [1] }] }],
      [400, /given twice/, { inputs: [input('x', x), input('x', x)] }],
      [400, /no input "z"/, { inputs: [input('x', x), input('z', x)] }],
      [400, /no output "q"; it has y/, { inputs: [input('x', x)], outputs: [{ name: 'q' }] }],
      [400, /bytes are left/, withX({ data: undefined, parameters: { binary_data_size: 128 } })],
      [400, /belong to no input/, Buffer.from(`${JSON.stringify(withX({}))}rest`), undefined, { 'inference-header-content-length': String(JSON.stringify(withX({})).length) }], // prettier-ignore
      [400, /no length within/, Buffer.from('{}'), undefined, { 'inference-header-content-length': '99' }],
      [400, /microseconds/, { ...withX({}), parameters: { timeout: -1 } }],
      [400, /201 characters/, { ...withX({}), id: 'i'.repeat(201) }],
      [404, /no model "other"; this server has mlp, pick, types/, withX({}), NO_MODEL],
      [404, /no version "2"; it has 1, 3/, withX({}), '/v2/models/mlp/versions/2/infer'],
      [404, /no POST \/v2\/nothing/, {}, '/v2/nothing'],
      [400, /does not have the shape/, Buffer.from(`{"inputs":[{"name":"i","datatype":"INT64","shape":[1],"data":${'['.repeat(40_000)}${']'.repeat(40_000)}}]}`)], // prettier-ignore
      [413, /too large/, Buffer.alloc(100_001)],
      [
        500,
        /indices element out of data bounds|out of (bounds|range)/i,
        { inputs: [{ name: 'i', datatype: 'INT64', shape: [1], data: [99] }] },
        '/v2/models/pick/infer',
      ],
      [504, /did not end within/, { ...withX({}), parameters: { timeout: 1 } }],
    ];
    for (const [status, words, body, path, headers] of cases) {
      const reply = await infer(body, path, headers);
      assert.equal(reply.status, status, `${words.source}: ${reply.body.toString()}`);
      assert.match(String(reply.json['error']), words);
    }
    const nan = { inputs: [input('x', float32([1, 16], new Float32Array(16).fill(3e38)))] };
    const overflow = await infer(nan);
    assert.deepEqual([overflow.status, /NaN or infinities/.test(String(overflow.json['error']))], [400, true]);
    assertAnswer(outputsOf(await infer({ inputs: [input('x', x)] }))[0]!.data!);
  });

  it('unloads, loads, and swaps what is loaded again between two requests, sending only what is new', async () => {
    const state = async () => {
      const { body } = await t.post('/v2/repository/index');
      const models = JSON.parse(body.toString()) as { name: string; version: string; state: string }[];
      return models.map(({ name, version, state }) => `${name}:${version} ${state}`);
    };
    assert.deepEqual(await state(), ['mlp:3 READY', 'mlp:1 READY', 'pick:1 READY', 'types:1 READY']);
    const version = { parameters: { version: '3' } };
    assert.equal((await t.post('/v2/repository/models/mlp/unload', version)).status, 200);
    assert.deepEqual(await state(), ['mlp:3 UNAVAILABLE', 'mlp:1 READY', 'pick:1 READY', 'types:1 READY']);
    const gone = await infer({ inputs: [input('x', x)] }, '/v2/models/mlp/versions/3/infer');
    assert.deepEqual([gone.status, gone.headers['retry-after']], [503, '1']);
    assert.equal((await infer({ inputs: [input('x', x)] }, '/v2/models/mlp/infer')).json['model_version'], '1');
    assert.equal((await t.get('/v2/models/mlp/versions/3/ready')).status, 503);
    assert.equal((await t.post('/v2/repository/models/mlp/load', version)).status, 200);
    assert.equal((await t.get('/v2/models/mlp/versions/3/ready')).status, 200);

    const changed = mlp(5);
    changed.initializers = { ...changed.initializers, a: mlp(3).initializers!['a']! };
    folder.write('mlp3.onnx', changed);
    const shards = () => t.running.server.repository.find('mlp', '3').model.health.layers.map(layer => layer.shards);
    const before = shards();
    const ended: EndedRequest[] = [];
    const stop = t.running.server.onEnded(request => ended.push(request));
    let isLoaded = false;
    const loading = t.post('/v2/repository/models/mlp/load', version).finally(() => (isLoaded = true));
    while (!isLoaded) assert.equal((await infer({ inputs: [input('x', x)] })).status, 200);
    assert.equal((await loading).status, 200);
    stop();
    assert.deepEqual([shards()[0], ended.every(({ error }) => error === undefined)], [before[0], true]);
    assert.notDeepEqual(shards()[1], before[1]);
    const answer = outputsOf(await infer({ inputs: [input('x', x)] }, '/v2/models/mlp/versions/3/infer'))[0]!.data!;
    const wanted = (await answerOf(changed, { x }))['y']!.data as Float32Array;
    answer.forEach((value, i) => assert.ok(Math.abs(value - wanted[i]!) <= 1e-4 * Math.max(1, Math.abs(wanted[i]!))));

    folder.write('mlp3.onnx', typesModel);
    const failed = await t.post('/v2/repository/models/mlp/load', version);
    assert.deepEqual([failed.status, /other model|another model/.test(String(failed.json['error']))], [400, true]);
    assert.equal((await infer({ inputs: [input('x', x)] }, '/v2/models/mlp/versions/3/infer')).status, 200);
    assert.equal((await t.post('/v2/repository/models/other/load')).status, 404);
  });

  it('names the option whose port is taken', async () => {
    const [host, port] = t.http.split(':');
    const [, grpcPort] = t.grpc.split(':');
    const start = (options: object) => startServer({ cluster: t.cluster, version: '0', models: [], ...options });
    const taken = (option: string) => ({
      code: 'ADDRESS_IN_USE',
      message: new RegExp(`^${option}: 127.0.0.1:\\d+ is taken`),
    });
    await assert.rejects(start({ http: { host, port: Number(port) } }), taken('--http'));
    await assert.rejects(start({ grpc: { host, port: Number(grpcPort) } }), taken('--grpc'));
  });

  it('documents every status that it has', () => {
    const text = readFileSync(new URL('../../../docs/serving.md', import.meta.url), 'utf8');
    for (const status of [400, 401, 403, 404, 405, 406, 408, 413, 415, 417, 429, 431, 500, 501, 503, 504])
      assert.match(text, new RegExp(`\\| ${status} `));
  });
});
