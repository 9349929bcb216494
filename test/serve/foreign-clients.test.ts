/** Clients that nobody of kofn wrote: buf (Go), Debian's python3-grpcio (C++), Triton's own (Python), curl. And what of a request reaches the workers. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Tensor } from '@kofn/core';
import { connectChannel, readRequest, REQUEST_ID } from '@kofn/wire';
import { startServer } from '@kofn/master/serve';
import { connect } from 'kofn';
import { after, before, describe, it } from 'mocha';
import { ROOT } from '../e2e/command.js';
import { needDebian } from '../support/debian.js';
import { answerOf, mlp, ModelFolder, rows, sameModel } from '../support/served-models.js';
import { serving, type Serving } from '../support/serving.js';

const run = promisify(execFile);
const BUF = path.join(ROOT, 'node_modules', '.bin', 'buf');
const PYTHON = '/usr/bin/python3'; // Debian's own
/** Has Triton's client, which `npm run setup:debian` puts there. */
const VENV_PYTHON = path.join(ROOT, '.venv', 'bin', 'python');
const PLUGIN = '/usr/bin/grpc_python_plugin';

describe('clients of others', () => {
  const folder = new ModelFolder();
  const model = mlp(1);
  const { x } = rows(2, 7) as { x: Tensor };
  const values = [...(x.data as Float32Array)];
  const labels = Array.from({ length: 16 }, (_, i) => `class ${i}`);
  let t: Serving;
  let expected: Float32Array;

  before(async () => {
    const models = [
      { name: 'mlp', version: '1', file: folder.write('mlp.onnx', model), labels },
      { name: 'text', version: '1', file: folder.write('text.onnx', sameModel('string', ['N'])) },
    ];
    t = await serving({ models });
    expected = (await answerOf(model, { x }))['y']!.data as Float32Array;
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  function assertAnswer(given: ArrayLike<number>): void {
    assert.equal(given.length, expected.length);
    expected.forEach((value, i) =>
      assert.ok(Math.abs(given[i]! - value) <= 1e-4 * Math.max(1, Math.abs(value)), `value ${i}`),
    );
  }

  const runs = (command: string, ...args: string[]) => spawnSync(command, args).status === 0;

  it('buf: reflection, health, metadata, inference and errors', async () => {
    const call = async (method: string, request: object) => {
      const args = [
        'curl',
        '--protocol',
        'grpc',
        '--http2-prior-knowledge',
        `http://${t.grpc}/${method}`,
        '-d',
        JSON.stringify(request),
      ];
      try {
        const { stdout } = await run(BUF, args, { cwd: folder.path('') });
        return JSON.parse(stdout) as Record<string, unknown>;
      } catch (error) {
        return JSON.parse((error as { stderr: string }).stderr) as Record<string, unknown>;
      }
    };
    const service = 'inference.GRPCInferenceService';
    const input = { name: 'x', datatype: 'FP32', shape: ['2', '16'] };
    const little = Buffer.from((x.data as Float32Array).buffer).toString('base64');
    const [health, metadata, typed, raw, unknown] = await Promise.all([
      call('grpc.health.v1.Health/Check', {}),
      call(`${service}/ModelMetadata`, { name: 'mlp' }),
      call(`${service}/ModelInfer`, {
        modelName: 'mlp',
        id: 'b',
        inputs: [{ ...input, contents: { fp32Contents: values } }],
      }),
      call(`${service}/ModelInfer`, { modelName: 'mlp', inputs: [input], rawInputContents: [little] }),
      call(`${service}/ModelInfer`, { modelName: 'other', inputs: [] }),
    ]);
    assert.deepEqual(health, { status: 'SERVING' });
    assert.deepEqual(metadata['inputs'], [{ name: 'x', datatype: 'FP32', shape: ['-1', '16'] }]);
    for (const reply of [typed, raw]) {
      const [content] =
        (reply['raw_output_contents'] as string[] | undefined) ?? (reply['rawOutputContents'] as string[]);
      assertAnswer(new Float32Array(Uint8Array.from(Buffer.from(content!, 'base64')).buffer));
    }
    assert.equal(typed['id'], 'b');
    assert.deepEqual((typed['parameters'] as Record<string, unknown>)['kofn_n'], { int64Param: '3' });
    assert.deepEqual(unknown['code'], 'not_found');
  });

  it('python3-grpcio: all six calls, the stream, raw and typed contents, errors and deadlines', async function () {
    needDebian(this, {
      'python3-grpcio': runs(PYTHON, '-c', 'import grpc'),
      'protobuf-compiler': runs('protoc', '--version'),
      'protobuf-compiler-grpc': runs('test', '-x', PLUGIN),
    });
    const stubs = folder.path('stubs');
    mkdirSync(stubs);
    const health = path.dirname(
      createRequire(path.join(ROOT, 'packages/wire/package.json')).resolve(
        'grpc-health-check/proto/health/v1/health.proto',
      ),
    );
    const out = [`--plugin=protoc-gen-grpc_python=${PLUGIN}`, `--python_out=${stubs}`, `--grpc_python_out=${stubs}`];
    execFileSync('protoc', [...out, `-I${path.join(ROOT, 'protos')}`, 'open_inference.proto']);
    execFileSync('protoc', [...out, `-I${health}`, 'health.proto']);
    const file = folder.path('about.json');
    writeFileSync(file, JSON.stringify({ values, shape: [2, 16] }));
    const { stdout } = await run(PYTHON, [path.join(ROOT, 'test', 'serve', 'client.py'), stubs, t.grpc, file]);
    const { raw, typed, stream, gain, ...rest } = JSON.parse(stdout) as {
      raw: number[];
      typed: number[];
      stream: [string, number[]][];
      gain: number;
    };
    assert.deepEqual(rest, {
      live: true,
      ready: true,
      model_ready: true,
      serving: 1,
      server: 'kofn',
      inputs: [['x', 'FP32', [-1, 16]]],
      ids: ['raw', 'typed'],
      k: 2,
      unknown: 'NOT_FOUND',
      shape: 'INVALID_ARGUMENT',
      late: 'DEADLINE_EXCEEDED',
      deadline: 'DEADLINE_EXCEEDED',
      index: ['READY', 'READY'],
    });
    assert.ok(gain >= 1);
    for (const answer of [raw, typed, ...stream.map(([, answer]) => answer)]) assertAnswer(answer);
    assert.deepEqual(
      stream.map(([id]) => id),
      ['0', '1', '2'],
    );
  });

  it("Triton's own: answers, classes, compression and BYTES, and what is refused by name, over both", async function () {
    needDebian(this, { 'python3-venv': runs(VENV_PYTHON, '-c', 'import tritonclient.http, tritonclient.grpc') });
    const file = folder.path('triton.json');
    writeFileSync(file, JSON.stringify({ values, shape: [2, 16] }));
    const script = path.join(ROOT, 'test', 'serve', 'triton_client.py');
    const { stdout } = await run(VENV_PYTHON, [script, t.http, t.grpc, file]);
    interface Asked {
      readonly plain: number[];
      readonly others: number[][];
      readonly classes: string[][][];
      readonly refused: Record<string, [string, string] | null>;
    }
    const { http, grpc, stream } = JSON.parse(stdout) as { http: Asked; grpc: Asked; stream: unknown };
    assert.deepEqual(stream, ['s', true, true]);
    const rowOf = (row: number) => [...expected.subarray(16 * row, 16 * row + 16)];
    for (const { plain, others, classes, refused, ...rest } of [http, grpc]) {
      assert.deepEqual(rest, { live: true, texts: true, loads: true });
      for (const answer of [plain, ...others]) assertAnswer(answer);
      for (const rows of classes) {
        assert.deepEqual(rows.map(({ length }) => length), [3, 3]); // prettier-ignore
        rows.forEach((row, at) => {
          const [value, index, label] = row[0]!.split(':');
          const best = Math.max(...rowOf(at));
          assert.deepEqual([Number(index), label], [rowOf(at).indexOf(best), `class ${rowOf(at).indexOf(best)}`]);
          assert.ok(Math.abs(Number(value) - best) < 1e-4);
        });
      }
      const words: [string, RegExp, RegExp][] = [
        ['bytes', /400|INVALID_ARGUMENT/, /"x".*element 0 is not UTF-8/],
        ['sequence_id', /400|UNIMPLEMENTED/, /sequence_id is not supported/],
        ['sequence_id of text', /400|UNIMPLEMENTED/, /sequence_id is not supported/],
        ['priority', /400|UNIMPLEMENTED/, /priority is not supported/],
        ['timeout', /504|DEADLINE_EXCEEDED/, /did not end within/],
        ['shared input', /400|UNIMPLEMENTED/, /"x": parameter shared_memory_region is not supported/],
        ['shared output', /400|UNIMPLEMENTED/, /"y": parameter shared_memory_region is not supported/],
        ['shared region', /404|UNIMPLEMENTED/, /systemsharedmemory|SystemSharedMemoryRegister/],
        ['config', /400|UNIMPLEMENTED/, /config is not supported/],
        ['files', /400|UNIMPLEMENTED/, /(config|file:1\/model\.onnx) is not supported/],
        ['model', /404|NOT_FOUND/, /no model "none"/],
        ['version', /404|NOT_FOUND/, /no version "7"/],
      ];
      assert.deepEqual(Object.keys(refused), words.map(([what]) => what)); // prettier-ignore
      for (const [what, status, message] of words) {
        assert.match(refused[what]![0], status, what);
        assert.match(refused[what]![1], message, what);
      }
    }
    assert.deepEqual([http.others.length, grpc.others.length, http.classes.length], [9, 4, 3]);
  });

  it('curl: JSON, and the binary extension', async function () {
    needDebian(this, { curl: runs('curl', '--version') });
    const url = `http://${t.http}/v2/models/mlp/infer`;
    const input = { name: 'x', datatype: 'FP32', shape: [2, 16] };
    writeFileSync(folder.path('body.json'), JSON.stringify({ id: 'c', inputs: [{ ...input, data: values }] }));
    const { stdout } = await run('curl', ['-sS', '--fail', '-H', 'Content-Type: application/json', '--data-binary', `@${folder.path('body.json')}`, url]); // prettier-ignore
    const reply = JSON.parse(stdout) as { id: string; outputs: { data: number[] }[] };
    assert.equal(reply.id, 'c');
    assertAnswer(reply.outputs[0]!.data);

    const json = JSON.stringify({
      inputs: [{ ...input, parameters: { binary_data_size: 128 } }],
      parameters: { binary_data_output: true },
    });
    writeFileSync(
      folder.path('body.bin'),
      Buffer.concat([Buffer.from(json), Buffer.from((x.data as Float32Array).buffer)]),
    );
    const [headers, answer] = [folder.path('headers'), folder.path('answer')];
    await run('curl', ['-sS', '--fail', '-D', headers, '-o', answer, '-H', 'Content-Type: application/octet-stream', '-H', `Inference-Header-Content-Length: ${json.length}`, '--data-binary', `@${folder.path('body.bin')}`, url]); // prettier-ignore
    const length = Number(/inference-header-content-length: (\d+)/i.exec(readFileSync(headers, 'utf8'))![1]);
    assertAnswer(new Float32Array(Uint8Array.from(readFileSync(answer).subarray(length)).buffer));
  });

  it("a request's id goes with it to the workers", async () => {
    const ids = new Set<string | undefined>();
    const cluster = await connect(
      { workers: t.workers.addresses },
      {
        openChannel(address, options) {
          const channel = connectChannel(address, options);
          const duplex: typeof channel.duplex = (method, events) => {
            const call = channel.duplex(method, events);
            return {
              send(message) {
                const frame = message instanceof Uint8Array ? message : Buffer.concat(message);
                const { parameters, model_name: shard } = readRequest(frame);
                if (shard !== '') ids.add(parameters[REQUEST_ID]?.string_param);
                return call.send(message);
              },
              end: () => call.end(),
              cancel: () => call.cancel(),
            };
          };
          return {
            address: channel.address,
            ready: call => channel.ready(call),
            onBroken: listener => channel.onBroken(listener),
            unary: (...call) => channel.unary(...call),
            clientStream: (...call) => channel.clientStream(...call),
            duplex,
            [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
          };
        },
      },
    );
    const file = folder.path('mlp.onnx');
    const http = { host: '127.0.0.1', port: 0 };
    const running = await startServer({ cluster, version: '0', models: [{ name: 'mlp', version: '1', file }], http });
    try {
      const body = JSON.stringify({
        id: 'from afar',
        inputs: [{ name: 'x', datatype: 'FP32', shape: [2, 16], data: values }],
      });
      const reply = await fetch(`http://${running.httpAddress}/v2/models/mlp/infer`, { method: 'POST', body });
      assert.equal(((await reply.json()) as { id: string }).id, 'from afar');
      assert.deepEqual([...ids], ['from afar']);
    } finally {
      await running[Symbol.asyncDispose]();
      for (const { model: served } of running.server.models()) await served.close();
      await cluster.close();
    }
  });
});
