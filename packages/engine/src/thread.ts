/**
 * The engine's thread. It owns one ONNX Runtime and does one thing at a time, in the order of the messages.
 *
 * Invariants
 * 1. Every message gets one answer, 'done' or 'failed'; nothing that a model does ends the thread.
 * 2. Outputs are transferred, never cloned.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { KofnError, type Tensors } from '@kofn/core';
import type { Backend, BackendSession } from './backend.js';
import { openNative } from './native.js';
import {
  prepareTransfer,
  type FromThread,
  type Opened,
  type Request,
  type ThreadData,
  type ToThread,
} from './protocol.js';
import { openWasm } from './wasm.js';

const port = parentPort!;
const sessions = new Map<number, BackendSession>();
let opened = 0;

const { engine } = workerData as ThreadData;
let work = (engine === 'native' ? openNative() : openWasm()).then(
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

port.on('message', (message: ToThread) => {
  work = work.then(async backend => {
    try {
      const value = await serve(backend, message);
      const { values, buffers } =
        message.kind === 'run' ? prepareTransfer(value as Tensors, true) : { values: value, buffers: [] };
      post({ kind: 'done', id: message.id, value: values }, buffers);
    } catch (error) {
      post(failure(message.id, KofnError.from(error, 'ENGINE')));
    }
    return backend;
  });
  work.catch(() => undefined);
});

async function serve(backend: Backend, request: Request): Promise<Opened | Tensors | undefined> {
  switch (request.kind) {
    case 'open': {
      await requireFile(path.join(request.folder, 'model.onnx'));
      const session = await backend.open(request.folder, request.threads).catch((error: unknown) => {
        throw openingError(error, request.folder);
      });
      sessions.set(++opened, session);
      return { session: opened, inputs: session.inputs, outputs: session.outputs };
    }
    case 'run':
      return find(request.session).run(request.feeds);
    case 'release': {
      const session = find(request.session);
      sessions.delete(request.session);
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

function openingError(error: unknown, folder: string): KofnError {
  if (error instanceof KofnError) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (/bad_alloc|out of memory|failed to allocate|cannot allocate/i.test(text)) {
    return new KofnError('RESOURCE_EXHAUSTED', `no memory is left for the model in ${folder}: ${text}`);
  }
  return new KofnError('INVALID_MODEL', `ONNX Runtime cannot open the model in ${folder}: ${text}`);
}

function failure(id: number | undefined, { code, message }: KofnError): FromThread {
  return { kind: 'failed', id, code, message };
}

function post(message: FromThread, buffers: ArrayBuffer[] = []): void {
  port.postMessage(message, buffers);
}
