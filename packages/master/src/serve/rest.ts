/** The Open Inference Protocol over HTTP: its routes, and Triton's model repository extension. */
import { KofnError, openController, type Controller } from '@kofn/core';
import { tensorMetadata } from '@kofn/wire';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { SERVER_EXTENSIONS } from './grpc.js';
import { HEADER_LENGTH, readInferBody, writeInferAnswer } from './rest-codec.js';
import type { InferenceServer } from './server.js';

type Params = { readonly model: string; readonly version?: string };
type Request = FastifyRequest<{ Params: Params }>;

/** `version`: of kofn. */
export function registerRest(app: FastifyInstance, server: InferenceServer, version: string): void {
  void app.register((scope, _options, done) => {
    // Bodies are read here: one may be JSON and binary data behind it, whatever its type says.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, parsed) => parsed(null, body));
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
    const { ready } = bodyOf(request);
    return repository.index().filter(({ state }) => ready !== true || state === 'READY');
  });
  app.post('/v2/repository/models/:model/load', async (request: Request, reply) => {
    request.raw.socket.setTimeout(0); // shards may take minutes, in which nothing is said
    using gone = untilGone(reply);
    await repository.load(request.params.model, versionOf(request), gone.signal);
    return {};
  });
  app.post('/v2/repository/models/:model/unload', async (request: Request) => {
    await repository.unload(request.params.model, versionOf(request));
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
  app.post(`${path}/infer`, async (request: Request, reply) => {
    const { model, version = '' } = request.params;
    const header = request.headers[HEADER_LENGTH];
    const { isBinary, ...call } = readInferBody(bytesOf(request), Array.isArray(header) ? header[0] : header);
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

function bytesOf({ body }: FastifyRequest): Buffer {
  if (Buffer.isBuffer(body)) return body;
  throw new KofnError('INVALID_ARGUMENT', 'the request has no body; POST it as JSON');
}

/** The body as a JSON object; {} for none. Throws INVALID_ARGUMENT. */
function bodyOf(request: FastifyRequest): Record<string, unknown> {
  if (!Buffer.isBuffer(request.body) || request.body.byteLength === 0) return {};
  let json: unknown;
  try {
    json = JSON.parse(request.body.toString('utf8'));
  } catch (cause) {
    throw new KofnError('INVALID_ARGUMENT', `the body is no JSON: ${(cause as Error).message.slice(0, 200)}`, {
      cause,
    });
  }
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw new KofnError('INVALID_ARGUMENT', 'the body is no JSON object');
}

/** The parameter "version" of loading and unloading; '' for all. Throws INVALID_ARGUMENT. */
function versionOf(request: FastifyRequest): string {
  const { version } = (bodyOf(request)['parameters'] ?? {}) as { version?: unknown };
  if (version === undefined) return '';
  if (typeof version === 'string') return version;
  throw new KofnError('INVALID_ARGUMENT', 'parameter version: give the version as a string');
}
