/**
 * The engine's thread. It owns one ONNX Runtime and does one thing at a time, in the order of the messages.
 *
 * Invariants
 * 1. Every message gets one answer, 'done' or 'failed'; nothing that a model does ends the thread.
 * 2. Outputs are transferred, never cloned.
 * 3. The runtime is called inside the gate only (gate.ts), so that the thread can be ended at any time outside.
 * 4. Runs that have not started when their session's release arrives never start: the caller has cancelled them.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { KofnError, type ErrorCode, type Tensors } from '@kofn/core';
import type { Backend, BackendSession } from './backend.js';
import { enter, leave } from './gate.js';
import { openNative } from './native.js';
import {
  prepareTransfer,
  type Answer,
  type FromThread,
  type Request,
  type ThreadData,
  type ToThread,
} from './protocol.js';
import { openWasm } from './wasm.js';

const port = parentPort!;
const sessions = new Map<number, BackendSession>();
/** Sessions whose release has arrived but not been served. */
const closing = new Set<number>();
let opened = 0;

const { engine, gate } = workerData as ThreadData;
let work = inside(engine === 'native' ? openNative : openWasm).then(
  backend => {
    post({ kind: 'ready', version: backend.version });
    return backend;
  },
  (error: unknown) => {
    post(failure(undefined, KofnError.from(error, 'ENGINE')));
    throw error;
  },
);
work.catch(() => undefined);

port.on('message', take);

function take(message: ToThread): void {
  if (message.kind === 'close') {
    work.then(
      () => process.exit(),
      () => process.exit(),
    );
    return;
  }
  if (message.kind === 'release') closing.add(message.session);
  work = work.then(async backend => {
    takeWhatHasCome();
    try {
      const value = await inside(() => serve(backend, message));
      const { values, buffers } =
        message.kind === 'run' ? prepareTransfer(value as Tensors, true) : { values: value, buffers: [] };
      post({ kind: 'done', id: message.id, value: values }, buffers);
    } catch (error) {
      post(failure(message.id, KofnError.from(error, 'ENGINE')));
    }
    return backend;
  });
  work.catch(() => undefined);
}

/** From one run to the next no turn of the loop need lie between, and a release would wait. */
function takeWhatHasCome(): void {
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
    take(next.message as ToThread);
  }
}

/** Throws CANCELLED when the engine is closing. */
async function inside<T>(work: () => Promise<T>): Promise<T> {
  if (!enter(gate)) throw new KofnError('CANCELLED', 'the engine is closed');
  try {
    return await work();
  } finally {
    leave(gate);
  }
}

async function serve(backend: Backend, request: Request): Promise<Answer> {
  switch (request.kind) {
    case 'open': {
      await requireFile(path.join(request.folder, 'model.onnx'));
      const session = await backend.open(request.folder, request.threads).catch((error: unknown) => {
        throw runtimeError(error, 'INVALID_MODEL', `ONNX Runtime cannot open the model in ${request.folder}`);
      });
      sessions.set(++opened, session);
      return { session: opened, inputs: session.inputs, outputs: session.outputs };
    }
    case 'normalise': {
      const { modelFile, target } = request;
      await requireFile(modelFile);
      await backend.normalise?.(modelFile, target).catch((error: unknown) => {
        throw runtimeError(error, 'INVALID_MODEL', `ONNX Runtime cannot open the model ${modelFile}`);
      });
      return undefined;
    }
    case 'run':
      if (closing.has(request.session)) throw new KofnError('CANCELLED', 'the session is closed');
      return find(request.session)
        .run(request.feeds)
        .catch((error: unknown) => {
          throw runtimeError(error, 'ENGINE', 'ONNX Runtime failed to run the model');
        });
    case 'release': {
      const session = find(request.session);
      sessions.delete(request.session);
      closing.delete(request.session);
      await session.release();
      return undefined;
    }
  }
}

function find(session: number): BackendSession {
  const found = sessions.get(session);
  if (found === undefined) throw new KofnError('CANCELLED', 'the session is closed');
  return found;
}

async function requireFile(file: string): Promise<void> {
  await stat(file).catch((cause: unknown) => {
    throw new KofnError('NOT_FOUND', `there is no model at ${file}`, { cause });
  });
}

/** The runtime's own words at the end; by them RESOURCE_EXHAUSTED or UNSUPPORTED, else `code`. */
function runtimeError(error: unknown, code: ErrorCode, what: string): KofnError {
  if (error instanceof KofnError) return error;
  const text = (error instanceof Error ? error.message : String(error)).trim();
  if (/bad_alloc|out of memory|failed to allocate|cannot allocate|2 GiB/i.test(text)) code = 'RESOURCE_EXHAUSTED';
  if (/unsupported data type/i.test(text)) code = 'UNSUPPORTED';
  return new KofnError(code, `${what}: ${text}`, { cause: error });
}

function failure(id: number | undefined, { code, message }: KofnError): FromThread {
  return { kind: 'failed', id, code, message };
}

function post(message: FromThread, buffers: ArrayBuffer[] = []): void {
  port.postMessage(message, buffers);
}
