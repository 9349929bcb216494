/**
 * Every field and parameter that clients of the Open Inference Protocol and of Triton may send, over HTTP and over gRPC: done, or refused by
 * name. docs/serving.md has them as a table.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { ServiceError } from '@grpc/grpc-js';
import { float32, type Tensor } from '@kofn/core';
import type { ModelFile } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { inferenceClient, type StockClient } from '../support/inference-client.js';
import type { ModelSpec } from '../support/onnx-models.js';
import { answerOf, mlp, ModelFolder, rows, sameModel, typesModel } from '../support/served-models.js';
import { serving, type Reply, type Serving } from '../support/serving.js';

const LABELS = Array.from({ length: 16 }, (_, i) => `class ${i}`);
/** 0xff is in no UTF-8. */
const NO_TEXT = Buffer.from([0xff, 0x00]);

interface GrpcReply {
  readonly parameters: Record<string, Record<string, unknown>>;
  readonly outputs: { datatype: string; shape: { toNumber(): number }[] }[];
  readonly rawOutputContents: Buffer[];
}

/** The elements of a raw BYTES tensor. */
function textsIn(raw: Buffer): string[] {
  const texts: string[] = [];
  for (let at = 0; at < raw.length; at += 4 + raw.readUInt32LE(at)) {
    texts.push(raw.toString('utf8', at + 4, at + 4 + raw.readUInt32LE(at)));
  }
  return texts;
}

function rawText(...elements: Buffer[]): Buffer {
  return Buffer.concat(
    elements.flatMap(bytes => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
}

describe('what a stock client may send', () => {
  const folder = new ModelFolder();
  const { x } = rows(2, 7) as { x: Tensor };
  const values = [...(x.data as Float32Array)];
  const input = { name: 'x', datatype: 'FP32', shape: [2, 16] };
  const typed = { ...input, contents: { fp32Contents: values } };
  let t: Serving;
  let client: StockClient;
  let expected: number[];

  before(async () => {
    const sampleInputs = { x: float32([1, 3, 2], new Float32Array(6)) };
    const model = (name: string, spec: ModelSpec, { labels, options }: Partial<ModelFile> = {}): ModelFile => ({
      name,
      version: '1',
      file: folder.write(`${name}.onnx`, spec),
      labels,
      options,
    });
    const models = [
      model('mlp', mlp(1), { labels: LABELS }),
      model('types', typesModel),
      model('text', sameModel('string', ['N'])),
      model('open', sameModel('float32', ['N', 3, 'H']), { options: { sampleInputs } }),
      model('opener', sameModel('float32', ['N', 'C', 'H']), { options: { sampleInputs } }),
    ];
    t = await serving({ models });
    client = inferenceClient(t.grpc);
    expected = [...((await answerOf(mlp(1), { x }))['y']!.data as Float32Array)];
  });
  after(async () => {
    client.close();
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const infer = (body: unknown, model = 'mlp', headers: Record<string, string> = {}) =>
    t.post(`/v2/models/${model}/infer`, body, headers);
  const binary = (json: object, ...parts: Buffer[]): [Buffer, Record<string, string>] => {
    const head = Buffer.from(JSON.stringify(json));
    return [Buffer.concat([head, ...parts]), { 'inference-header-content-length': String(head.length) }];
  };
  const binaryPart = ({ body, headers }: Reply) => body.subarray(Number(headers['inference-header-content-length']));
  const inferGrpc = async (request: object) =>
    (await client.call('modelInfer', { modelName: 'mlp', inputs: [typed], ...request })) as unknown as GrpcReply;

  async function assertRefused(reply: Promise<Reply>, words: RegExp): Promise<void> {
    const { status, json, body } = await reply;
    assert.equal(status, 400, `${words.source}: ${body.subarray(0, 200).toString()}`);
    assert.match(String(json['error']), words);
  }
  const assertRefusedByGrpc = (method: string, request: object, words: RegExp) =>
    assert.rejects(client.call(method, request), (error: ServiceError) => {
      assert.match(error.details, words);
      assert.ok([3, 12].includes(error.code), String(error.code));
      return true;
    });

  it('null is absent, wherever something may be', async () => {
    const nothing = { timeout: null, priority: null, sequence_id: null, binary_data_output: null, any: null };
    const data = values;
    const full = [
      { id: null, parameters: null, outputs: null, inputs: [{ ...input, parameters: null, data }] },
      {
        parameters: nothing,
        inputs: [{ ...input, parameters: { binary_data_size: null, shared_memory_region: null }, data }],
        outputs: [{ name: 'y', parameters: null }],
      },
      {
        model_name: null,
        inputs: [{ ...input, data }],
        outputs: [{ name: 'y', parameters: { binary_data: null, classification: null, shared_memory_offset: null } }],
      },
    ];
    for (const each of full) assert.equal((await infer(each)).status, 200, JSON.stringify(each).slice(0, 100));
    const inBinary = { ...input, data: null, parameters: { binary_data_size: 128 } };
    const bytes = Buffer.from((x.data as Float32Array).buffer);
    const [body, headers] = binary({ inputs: [inBinary] }, bytes);
    assert.equal((await infer(body, 'mlp', headers)).status, 200);
    await assertRefused(infer({ inputs: [{ ...input, data: null }] }), /"x": give its data/);
    await assertRefused(infer({ inputs: null }), /inputs/);
    await assertRefused(infer({ inputs: [{ ...input, shape: null, data }] }), /shape/);
    await assertRefused(infer({ inputs: [{ ...input, data: [null, ...data.slice(1)] }] }), /null is no float32/);
    for (const each of [null, { ready: null }, { ready: true }]) {
      assert.equal((await t.post('/v2/repository/index', Buffer.from(JSON.stringify(each)))).status, 200);
    }
    for (const each of [null, { parameters: null }, { parameters: { version: null, config: null } }]) {
      const reply = await t.post('/v2/repository/models/text/load', Buffer.from(JSON.stringify(each)));
      assert.equal(reply.status, 200, reply.body.toString());
    }
    // Over gRPC it is a parameter without a value.
    await inferGrpc({ parameters: { timeout: {}, priority: {} } });
  });

  it('values of another kind are refused by name, and what nobody reads is left alone', async () => {
    const good = { ...input, data: values };
    const cases: [object, RegExp][] = [
      [{ id: 7, inputs: [good] }, /^id: /],
      [{ parameters: [], inputs: [good] }, /^parameters: /],
      [{ parameters: { timeout: '5' }, inputs: [good] }, /parameter timeout/],
      [{ parameters: { timeout: 1.5 }, inputs: [good] }, /parameter timeout/],
      [{ parameters: { binary_data_output: 1 }, inputs: [good] }, /parameter binary_data_output/],
      [{ inputs: [{ ...good, parameters: 'none' }] }, /^inputs\[0\]\.parameters: /],
      [{ inputs: [good], outputs: {} }, /^outputs: /],
      [{ inputs: [good], outputs: ['y'] }, /^outputs\[0\]: /],
      [{ inputs: [good], outputs: [{ name: 'y' }, { name: 'y' }] }, /outputs: "y" is given twice/],
      [{ inputs: [good], outputs: [{ name: 'y', parameters: { classification: 2.5 } }] }, /parameter classification/],
      [{ inputs: [good], outputs: [{ name: 'y', parameters: { classification: '2' } }] }, /parameter classification/],
      [{ inputs: [good], outputs: [{ name: 'y', parameters: { classification: -1 } }] }, /parameter classification/],
    ];
    for (const [body, words] of cases) await assertRefused(infer(body), words);
    for (const [path, body] of [
      ['index', { ready: 'yes' }],
      ['index', []],
      ['models/text/load', { parameters: 'x' }],
      ['models/text/load', { parameters: { version: 1 } }],
    ] as const) {
      await assertRefused(t.post(`/v2/repository/${path}`, body), /ready|body|parameters|version/);
    }
    const parameters = { headers: 'x', content_type: 'np', sequence_id: 0, sequence_start: false, priority: 0 };
    const more = { model_name: 'another', model_version: '9', stream: true, parameters };
    assert.equal((await infer({ ...more, inputs: [{ ...good, parameters }] })).status, 200);
    await inferGrpc({ parameters: { custom: { stringParam: 'x' }, priority: { uint64Param: 0 } } });
    await assertRefusedByGrpc(
      'modelInfer',
      { modelName: 'mlp', inputs: [typed], outputs: [{ name: 'y' }, { name: 'y' }] },
      /"y" is given twice/,
    );
  });

  it('classes of an output, by all ways that an answer can take', async () => {
    const index = (row: number[]) => row.map((value, i) => [value, i] as const).sort(([a], [b]) => b - a)[0]![1];
    const best = [index(expected.slice(0, 16)), index(expected.slice(16))];
    const assertClasses = (texts: readonly string[], count: number) => {
      assert.equal(texts.length, 2 * count);
      best.forEach((at, row) => {
        const [value, given, label] = texts[row * count]!.split(':');
        assert.deepEqual([given, label], [String(at), `class ${at}`]);
        assert.ok(Math.abs(Number(value) - expected[16 * row + at]!) < 1e-4);
      });
    };
    const asked = (parameters: object) => ({
      inputs: [{ ...input, data: values }],
      outputs: [{ name: 'y', parameters }],
    });
    const json = await infer(asked({ classification: 3 }));
    const [output] = json.json['outputs'] as { datatype: string; shape: number[]; data: string[] }[];
    assert.deepEqual([output!.datatype, output!.shape], ['BYTES', [2, 3]]);
    assertClasses(output!.data, 3);
    assertClasses(textsIn(binaryPart(await infer(asked({ classification: 2, binary_data: true })))), 2);
    const outputs = [{ name: 'y', parameters: { classification: { int64Param: 3 } } }];
    const reply = await inferGrpc({ outputs });
    assert.deepEqual([reply.outputs[0]!.datatype, reply.outputs[0]!.shape.map(Number)], ['BYTES', [2, 3]]);
    assertClasses(textsIn(reply.rawOutputContents[0]!), 3);
    assertClasses(textsIn((await inferGrpc({ outputs: [{ name: 'y', parameters: { classification: { int64Param: 99 } } }] })).rawOutputContents[0]!), 16); // prettier-ignore
    const words = { inputs: [{ name: 'x', datatype: 'BYTES', shape: [1], data: ['a'] }] };
    const classes = { outputs: [{ name: 'y', parameters: { classification: 1 } }] };
    await assertRefused(infer({ ...words, ...classes }, 'text'), /"y": parameter classification.*string/);
    assert.deepEqual((await t.get('/v2')).json['extensions'], [
      'classification',
      'model_repository',
      'model_repository(unload_dependents)',
      'binary_tensor_data',
      'kofn.cancel',
      'kofn.checksum',
    ]);
  });

  it('BYTES come back as they went, or are refused by name: what is no UTF-8, and what the engine would cut off', async () => {
    const words = /"x".*element 1 is not UTF-8/s;
    const texts = ['grüß', '', '\ufeff 😀'];
    const shape = [3];
    const there = rawText(...texts.map(each => Buffer.from(each)));
    const bad = rawText(Buffer.from('a'), NO_TEXT, Buffer.from('b'));
    const text = { name: 'x', datatype: 'BYTES', shape };
    const inBinary = (raw: Buffer) => {
      const parameters = { binary_data_size: raw.length };
      const [body, headers] = binary(
        { inputs: [{ ...text, parameters }], parameters: { binary_data_output: true } },
        raw,
      );
      return infer(body, 'text', headers);
    };
    const json = await infer({ inputs: [{ ...text, data: texts }] }, 'text');
    assert.deepEqual((json.json['outputs'] as { data: string[] }[])[0]!.data, texts);
    assert.deepEqual(binaryPart(await inBinary(there)), there);
    const grpc = (more: object) => client.call('modelInfer', { modelName: 'text', ...more });
    const typedText = (...contents: Buffer[]) => ({ inputs: [{ ...text, contents: { bytesContents: contents } }] });
    const raw = (bytes: Buffer) => ({ inputs: [text], rawInputContents: [bytes] });
    for (const request of [raw(there), typedText(...texts.map(each => Buffer.from(each)))]) {
      assert.deepEqual(((await grpc(request)) as unknown as GrpcReply).rawOutputContents[0], there);
    }
    await assertRefused(inBinary(bad), words);
    await assertRefusedByGrpc('modelInfer', { modelName: 'text', ...raw(bad) }, words);
    const typedBad = typedText(Buffer.from('a'), NO_TEXT, Buffer.from('b'));
    await assertRefusedByGrpc('modelInfer', { modelName: 'text', ...typedBad }, words);
    const inJson = (data: string) =>
      infer(
        Buffer.from(`{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["${data}"]}]}`, 'latin1'),
        'text',
      );
    await assertRefused(inJson('\xff'), /not UTF-8/);
    await assertRefused(inJson('\\ud83d'), /element 0 has half of a surrogate pair/);
    await assertRefused(inJson('a\\u0000b'), /element 0 has a NUL/);
    const nul = rawText(Buffer.from('a\0b'));
    await assertRefusedByGrpc('modelInfer', { modelName: 'text', inputs: [{ ...text, shape: [1] }], rawInputContents: [nul] }, /NUL/); // prettier-ignore
  });

  it('a bare body is the one input of a model, and its size decides the size that is open', async () => {
    const bare = (body: Buffer, model: string) => infer(body, model, { 'inference-header-content-length': '0' });
    const shapeOf = (reply: Reply) => {
      assert.equal(reply.status, 200, reply.body.toString());
      const head = reply.body.subarray(0, Number(reply.headers['inference-header-content-length'])).toString();
      return (JSON.parse(head) as { outputs: { shape: number[] }[] }).outputs[0]!.shape;
    };
    const bytes = Buffer.from((x.data as Float32Array).buffer);
    const answer = await bare(bytes, 'mlp');
    assert.deepEqual(shapeOf(answer), [2, 16]);
    const given = new Float32Array(Uint8Array.from(binaryPart(answer)).buffer);
    expected.forEach((value, i) => assert.ok(Math.abs(given[i]! - value) < 1e-4));
    assert.deepEqual(shapeOf(await bare(bytes.subarray(0, 96), 'open')), [1, 3, 8]); // a batch of one, as Triton has it
    const text = await bare(Buffer.from('grüß'), 'text');
    assert.deepEqual([shapeOf(text), textsIn(binaryPart(text))], [[1], ['grüß']]);
    await assertRefused(bare(bytes.subarray(1), 'mlp'), /127 bytes does not fill float32 \[N,16\]/);
    await assertRefused(bare(bytes, 'opener'), /does not tell the shape of \[N,C,H\]/);
    await assertRefused(bare(bytes, 'types'), /takes 13 \(float32, /);
    await assertRefused(bare(NO_TEXT, 'text'), /element 0 is not UTF-8/);
    for (const length of ['-1', '0x0', '1e1', '00000000000', '129', ' ', '0, 0']) {
      await assertRefused(
        infer(bytes, 'mlp', { 'inference-header-content-length': length }),
        /no length within|no JSON/,
      );
    }
  });

  it('contents that are there twice, in the place of another type, or out of its range are refused', async () => {
    const raw = Buffer.from((x.data as Float32Array).buffer);
    const { int8, uint16 } = {
      int8: { name: 'int8', datatype: 'INT8' },
      uint16: { name: 'uint16', datatype: 'UINT16' },
    };
    const cases: [object, RegExp][] = [
      [{ inputs: [typed], rawInputContents: [raw] }, /"x".*raw and typed contents/],
      [{ inputs: [{ ...input, contents: { fp64Contents: values } }] }, /fp64_contents.*belong in fp32_contents/],
      [{ inputs: [{ ...input, contents: { fp32Contents: values, intContents: [1] } }] }, /it has int_contents/],
      [{ inputs: [{ ...int8, shape: [1], contents: { intContents: [300] } }] }, /element 0, 300, is out of range/],
      [{ inputs: [{ ...uint16, shape: [2], contents: { uintContents: [1, 70_000] } }] }, /element 1, 70000, is out/],
    ];
    for (const [request, words] of cases)
      await assertRefusedByGrpc('modelInfer', { modelName: 'mlp', ...request }, words);
  });

  it('each parameter that docs/serving.md says is refused is refused, by name, over both', async () => {
    const text = readFileSync(new URL('../../../docs/serving.md', import.meta.url), 'utf8');
    const refused = [...text.matchAll(/^\| (`[^|]+`) +\| refused/gm)].flatMap(([, fields]) => [
      ...fields!.matchAll(/`([^`]+)`/g),
    ]);
    const names = refused.map(([, field]) => field!);
    assert.equal(names.length, 12, names.join());
    for (const field of names) {
      const name = field.replace(/^.*parameters\./, '').replace('PATH', '1');
      const words = new RegExp(`parameter ${name} is not supported`);
      const [parameters, grpc] = [{ [name]: 1 }, { [name]: { int64Param: 1 } }];
      if (field.startsWith('load ')) {
        await assertRefused(t.post('/v2/repository/models/text/load', { parameters: { [name]: 'x' } }), words);
        const request = { modelName: 'text', parameters: { [name]: { bytesParam: Buffer.from('x') } } };
        await assertRefusedByGrpc('repositoryModelLoad', request, words);
        await assertRefusedByGrpc('repositoryModelUnload', request, words);
        continue;
      }
      const data = values;
      const [inJson, inGrpc] = field.startsWith('inputs')
        ? [{ inputs: [{ ...input, data, parameters }] }, { inputs: [{ ...typed, parameters: grpc }] }]
        : field.startsWith('outputs')
          ? [{ inputs: [{ ...input, data }], outputs: [{ name: 'y', parameters }] }, { outputs: [{ name: 'y', parameters: grpc }] }] // prettier-ignore
          : [{ inputs: [{ ...input, data }], parameters }, { parameters: grpc }];
      await assertRefused(infer(inJson), words);
      await assertRefusedByGrpc('modelInfer', { modelName: 'mlp', inputs: [typed], ...inGrpc }, words);
    }
    for (const method of ['repositoryIndex', 'repositoryModelLoad', 'repositoryModelUnload']) {
      await assertRefusedByGrpc(method, { repositoryName: 'other', modelName: 'text' }, /repository_name/);
    }
  });

  it('that a model is not there is said before what is wrong with the rest', async () => {
    for (const path of [
      'models/none/infer',
      'models/mlp/versions/7/infer',
      'repository/models/none/load',
      'repository/models/none/unload',
    ]) {
      const reply = await t.post(`/v2/${path}`, Buffer.from('no JSON'), { 'content-encoding': 'gzip' });
      assert.equal(reply.status, 404, `${path}: ${reply.body.toString()}`);
    }
    const wrong = { inputs: [{ ...input, datatype: 'FP8' }], parameters: { priority: { int64Param: 1 } } };
    await assert.rejects(client.call('modelInfer', { modelName: 'none', ...wrong }), { code: 5 });
    await assert.rejects(client.call('modelInfer', { modelName: 'mlp', modelVersion: '7', ...wrong }), { code: 5 });
  });

  it('whether a response on a stream is the last is said to those who ask', async () => {
    const stream = client.stream();
    const said: unknown[] = [];
    stream.on('data', ({ inferResponse }: { inferResponse: GrpcReply }) =>
      said.push(inferResponse.parameters['triton_final_response']?.['boolParam']),
    );
    const request = { modelName: 'mlp', inputs: [typed] };
    stream.write({ ...request, id: 'a', parameters: { triton_enable_empty_final_response: { boolParam: true } } });
    stream.write({ ...request, id: 'b' });
    stream.end();
    await new Promise(resolve => stream.on('end', resolve));
    assert.deepEqual(said.sort(), [true, undefined]);
  });
});
