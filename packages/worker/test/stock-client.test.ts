import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { credentials, loadPackageDefinition, type Client, type ClientDuplexStream } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { startRunning } from './support/running.js';
import { scaleShard } from './support/scale-engine.js';

/** A client that knows the .proto file and nothing of kofn: proto-loader with its own defaults, grpc-js with its own. */
type Call = (request: object, done: (error: Error | null, reply: Reply) => void) => void;
interface StockClient extends Client {
  [method: string]: unknown;
  modelStreamInfer(): ClientDuplexStream<object, { errorMessage: string; inferResponse: Reply }>;
}
interface Reply {
  [field: string]: unknown;
  outputs: { name: string; datatype: string; shape: { toNumber(): number }[] }[];
  rawOutputContents: Buffer[];
}

const PROTO = ['../../../wire/protos/', '../../../../protos/']
  .map(folder => fileURLToPath(new URL(`${folder}open_inference.proto`, import.meta.url)))
  .find(file => existsSync(file))!;

function stockClient(address: string): {
  client: StockClient;
  call: (method: string, request: object) => Promise<Reply>;
} {
  const { inference } = loadPackageDefinition(loadSync(PROTO)) as unknown as {
    inference: { GRPCInferenceService: new (address: string, creds: unknown) => StockClient };
  };
  const client = new inference.GRPCInferenceService(address, credentials.createInsecure());
  const call = (method: string, request: object) =>
    new Promise<Reply>((resolve, reject) =>
      (client[method] as Call).call(client, request, (error, reply) => (error ? reject(error) : resolve(reply))),
    );
  return { client, call };
}

function floats(raw: Buffer): number[] {
  return Array.from({ length: raw.byteLength / 4 }, (_, i) => raw.readFloatLE(4 * i));
}

describe('a stock Open Inference client', () => {
  const shard = scaleShard(2);
  const typed = (values: number[]) => ({
    name: 'x',
    datatype: 'FP32',
    shape: [1, values.length],
    contents: { fp32Contents: values },
  });

  it('infers with typed contents, unary and on a stream', async () => {
    await using t = await startRunning();
    await t.client.put(shard);
    const { client, call } = stockClient(t.worker.address);
    try {
      const reply = await call('modelInfer', { modelName: shard.name, id: 'a', inputs: [typed([1, 2])] });
      assert.deepEqual(floats(reply.rawOutputContents[0]!), [2, 4]);
      assert.deepEqual([reply['id'], reply['modelName'], reply['modelVersion']], ['a', shard.name, '1']);
      const [output] = reply.outputs;
      assert.deepEqual([output!.name, output!.datatype, ...output!.shape.map(Number)], ['y', 'FP32', 1, 2]);
      await assert.rejects(call('modelInfer', { modelName: 'other', inputs: [typed([1, 2])] }), /NOT_FOUND/);
      await assert.rejects(
        call('modelInfer', { modelName: shard.name, inputs: [{ ...typed([1, 2]), shape: [3] }] }),
        /INVALID_ARGUMENT.*"x"/,
      );
      const stream = client.modelStreamInfer();
      const replies: (string | number[])[] = [];
      stream.on('data', ({ errorMessage, inferResponse }: { errorMessage: string; inferResponse: Reply }) =>
        replies.push(errorMessage || floats(inferResponse.rawOutputContents[0]!)),
      );
      stream.write({ modelName: shard.name, inputs: [typed([1, 2])] });
      stream.write({ modelName: shard.name, inputs: [typed([3, 4])] });
      stream.end(); // half-closed: both are still answered, then the stream ends
      await once(stream, 'end');
      assert.deepEqual(replies, [
        [2, 4],
        [6, 8],
      ]);
    } finally {
      client.close();
    }
  });

  it('is refused by name what a worker does not do, over the unary call and on a stream', async () => {
    await using t = await startRunning();
    await t.client.put(shard);
    const { client, call } = stockClient(t.worker.address);
    try {
      const one = { int64Param: 1 };
      const cases: [object, RegExp][] = [
        [
          { outputs: [{ name: 'y', parameters: { classification: one } }] },
          /classification is not supported by a worker/,
        ],
        [{ outputs: [{ name: 'y' }, { name: 'y' }] }, /"y" is given twice/],
        [
          { outputs: [{ name: 'y', parameters: { shared_memory_region: { stringParam: 'r' } } }] },
          /shared_memory_region/,
        ],
        [{ inputs: [{ ...typed([1, 2]), parameters: { shared_memory_offset: one } }] }, /shared_memory_offset/],
        [{ parameters: { sequence_id: { stringParam: 's' } } }, /sequence_id/],
        [{ parameters: { priority: { uint64Param: 1 } } }, /priority/],
        [{ rawInputContents: [Buffer.alloc(8)] }, /raw and typed contents/],
      ];
      const stream = client.modelStreamInfer();
      for (const [more, words] of cases) {
        const request = { modelName: shard.name, inputs: [typed([1, 2])], ...more };
        await assert.rejects(call('modelInfer', request), words);
        stream.write(request);
        const [{ errorMessage }] = (await once(stream, 'data')) as [{ errorMessage: string }];
        assert.match(errorMessage, words);
      }
      stream.end();
      const load = { modelName: shard.name, parameters: { config: { stringParam: '{}' } } };
      await assert.rejects(call('repositoryModelLoad', load), /parameter config is not supported/);
      await assert.rejects(call('repositoryModelUnload', load), /parameter config is not supported/);
      const version = { modelName: shard.name, parameters: { version: { stringParam: '2' } } };
      await assert.rejects(call('repositoryModelLoad', version), /NOT_FOUND.*no version "2"/);
      await assert.rejects(call('repositoryIndex', { repositoryName: 'r' }), /repository_name/);
      assert.equal((await call('modelReady', { name: shard.name, version: '2' }))['ready'] ?? false, false);
    } finally {
      client.close();
    }
  });

  it('asks about the server and its models, loads and unloads them', async () => {
    await using t = await startRunning();
    await t.client.put(shard);
    const { client, call } = stockClient(t.worker.address);
    try {
      assert.equal((await call('serverLive', {}))['live'], true);
      assert.equal((await call('serverReady', {}))['ready'], true);
      assert.equal((await call('serverMetadata', {}))['name'], 'kofn-worker');
      assert.equal((await call('modelReady', { name: shard.name }))['ready'], true);
      assert.equal((await call('modelReady', { name: 'other' }))['ready'] ?? false, false);
      const state = async () =>
        ((await call('repositoryIndex', {}))['models'] as { name: string; state: string }[]).map(
          ({ name, state }) => `${name} ${state}`,
        );
      assert.deepEqual(await state(), [`${shard.name} UNAVAILABLE`]);
      await call('repositoryModelLoad', { modelName: shard.name });
      assert.deepEqual(await state(), [`${shard.name} READY`]);
      const metadata = await call('modelMetadata', { name: shard.name });
      const [input] = metadata['inputs'] as { name: string; datatype: string; shape: unknown[] }[];
      assert.deepEqual([input!.name, input!.datatype, ...input!.shape.map(Number)], ['x', 'FP32', -1, 2]);
      await call('repositoryModelUnload', { modelName: shard.name });
      assert.deepEqual([await state(), t.engine.closed], [[`${shard.name} UNAVAILABLE`], [shard.name]]);
      await assert.rejects(call('repositoryModelLoad', { modelName: 'other' }), /NOT_FOUND/);
    } finally {
      client.close();
    }
  });
});
