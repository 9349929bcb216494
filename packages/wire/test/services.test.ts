import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, it } from 'mocha';
import {
  credentials,
  loadPackageDefinition,
  type Client,
  type ClientDuplexStream,
  type ServiceClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import { METHODS } from '../src/protocol/protos.js';
import type { ServiceHandlers } from '../src/protocol/channel.js';
import { handlers, pair } from './harness.js';

interface ListReply {
  list_services_response: { service: { name: string }[] };
}

interface HealthClient extends Client {
  check(
    request: { service: string },
    done: (error: ServiceError | null, reply?: { status: string | number }) => void,
  ): void;
}

interface ReflectionClient extends Client {
  serverReflectionInfo(): ClientDuplexStream<object, ListReply>;
}

const services: ServiceHandlers = {
  ...handlers({}),
  unary: new Map([[METHODS.serverLive, request => Promise.resolve(request)]]),
};

describe('services beside the handlers', () => {
  it('grpc.health.v1 says SERVING, and NOT_SERVING while it drains', async () => {
    await using ends = await pair(services);
    const tree = loadPackageDefinition(loadSync(healthProto)) as unknown as {
      grpc: { health: { v1: { Health: ServiceClientConstructor } } };
    };
    const client = new tree.grpc.health.v1.Health(
      ends.server.address,
      credentials.createInsecure(),
    ) as unknown as HealthClient;
    const check = (service: string) =>
      new Promise<string | number>((resolve, reject) =>
        client.check({ service }, (error, reply) => (error ? reject(error) : resolve(reply!.status))),
      );
    try {
      for (const name of ['', 'inference.GRPCInferenceService']) assert.equal(Number(await check(name)), 1);
      ends.server.setServing(false);
      for (const name of ['', 'inference.GRPCInferenceService']) assert.equal(Number(await check(name)), 2);
      await assert.rejects(check('no.such.Service'), /NOT_FOUND/);
    } finally {
      client.close();
    }
  });

  it('reflection lists the services that are served', async () => {
    await using ends = await pair(services);
    const folder = path.dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json'));
    const file = path.join(folder, 'build', 'proto', 'grpc', 'reflection', 'v1', 'reflection.proto');
    const tree = loadPackageDefinition(loadSync(file, { keepCase: true })) as unknown as {
      grpc: { reflection: { v1: { ServerReflection: ServiceClientConstructor } } };
    };
    const client = new tree.grpc.reflection.v1.ServerReflection(
      ends.server.address,
      credentials.createInsecure(),
    ) as unknown as ReflectionClient;
    const call = client.serverReflectionInfo();
    try {
      const reply = once(call, 'data') as Promise<[ListReply]>;
      call.write({ list_services: '' });
      const [{ list_services_response: list }] = await reply;
      const names = list.service.map(({ name }) => name);
      assert.deepEqual(names.sort(), ['grpc.health.v1.Health', 'inference.GRPCInferenceService']);
      const end = once(call, 'end');
      call.end();
      await end;
    } finally {
      client.close();
    }
  });
});
