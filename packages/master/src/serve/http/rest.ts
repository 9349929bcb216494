/** The Open Inference Protocol over HTTP: its routes, and Triton's model repository extension. */
import { KofnError, openController, type Controller } from '@kofn/core';
import { tensorMetadata } from '@kofn/wire';
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify';
import { SERVER_EXTENSIONS } from '../inference/grpc.js';
import { HEADER_LENGTH, readIndexBody, readInferBody, readLoadBody, writeInferAnswer } from './rest-codec.js';
import type { InferenceServer } from '../inference/server.js';

type Params = { readonly model: string; readonly version?: string };
type Request = FastifyRequest<{ Params: Params }>;

/** `version`: of kofn. */
export function registerRest(app: FastifyInstance, server: InferenceServer, version: string): void {
  void app.register((scope, _options, done) => {
    // Bodies are read here: one may be JSON and binary data behind it, whatever its type says.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (request: FastifyRequest, body: Buffer) =>
      scope.decodeBody(request, body),
    );
    addHealth(scope, server);
    scope.get('/v2', () => ({ name: 'kofn', version, extensions: SERVER_EXTENSIONS }));
    addRepository(scope, server);
    for (const path of ['/v2/models/:model', '/v2/models/:model/versions/:version']) addModel(scope, server, path);
    done();
  });
}

/** Asked by whoever starts and restarts servers, who has no token. */
function addHealth(app: FastifyInstance, server: InferenceServer): void {
  const config = { public: true };
  app.get('/v2/health/live', { config }, () => {
    if (!server.isLive) throw new KofnError('UNAVAILABLE', 'this server is shutting down');
    return { live: true };
  });
  app.get('/v2/health/ready', { config }, () => {
    if (!server.isReady) throw new KofnError('UNAVAILABLE', 'a model is not ready, or this server is shutting down');
    return { ready: true };
  });
}

function addRepository(app: FastifyInstance, server: InferenceServer): void {
  const { repository } = server;
  app.post('/v2/repository/index', request => {
    const { ready } = readIndexBody(bytesOf(request));
    return repository.index().filter(({ state }) => ready !== true || state === 'READY');
  });
  const onRequest = before(({ model }) => repository.versions(model));
  app.post('/v2/repository/models/:model/load', { onRequest }, async (request: Request, reply) => {
    request.raw.socket.setTimeout(0); // shards may take minutes, in which nothing is said
    using gone = untilGone(reply);
    await repository.load(request.params.model, readLoadBody(bytesOf(request)), gone.signal);
    return {};
  });
  app.post('/v2/repository/models/:model/unload', { onRequest }, async (request: Request) => {
    await repository.unload(request.params.model, readLoadBody(bytesOf(request)));
    return {};
  });
}

function addModel(app: FastifyInstance, server: InferenceServer, path: string): void {
  app.get(path, ({ params: { model, version = '' } }: Request) => {
    const { inputs, outputs, ...rest } = server.describe(model, version);
    return { ...rest, inputs: inputs.map(tensorMetadata), outputs: outputs.map(tensorMetadata) };
  });
  app.get(`${path}/ready`, ({ params: { model, version = '' } }: Request) => {
    const { name } = server.repository.find(model, version);
    if (server.isModelReady(model, version)) return { name, ready: true };
    throw new KofnError('UNAVAILABLE', `model "${name}" has a layer with fewer than k usable workers`);
  });
  const onRequest = before(({ model, version = '' }) => server.repository.find(model, version));
  app.post(`${path}/infer`, { onRequest }, async (request: Request, reply) => {
    const { model, version = '' } = request.params;
    const header = request.headers[HEADER_LENGTH];
    const { inputs } = server.repository.find(model, version).model;
    const { isBinary, ...call } = readInferBody(bytesOf(request), header?.toString(), inputs);
    using gone = untilGone(reply);
    const answer = await server.infer({ ...call, model, version, signal: gone.signal });
    const { body, headerLength } = writeInferAnswer(answer, isBinary);
    if (headerLength === undefined) return reply.type('application/json; charset=utf-8').send(body);
    return reply.type('application/octet-stream').header('Inference-Header-Content-Length', headerLength).send(body);
  });
}

/** A signal that aborts when the client is gone before it has its answer. */
function untilGone({ raw }: FastifyReply): Pick<Controller, 'signal'> & Disposable {
  const controller = openController();
  const onClose = () => controller.abort(new KofnError('CANCELLED', 'the client is gone'));
  raw.once('close', onClose);
  return { signal: controller.signal, [Symbol.dispose]: () => void raw.off('close', onClose) };
}

/** A hook that throws what `find` does, before the body is looked at. */
function before(find: (params: Params) => unknown): onRequestHookHandler {
  return (request, _reply, done) => {
    find(request.params as Params);
    done();
  };
}

/** The body, whatever its content type; empty for none. */
function bytesOf({ body }: FastifyRequest): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.alloc(0);
}
