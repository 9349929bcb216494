/**
 * Runs a model uncoded, with ONNX Runtime and nothing of kofn between: the process behind reference.ts. It answers one
 * message with one message, and exits when its parent does.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { DType, Tensor, Tensors } from '@kofn/core';
import type { InferenceSession, Tensor as OrtTensor, TensorConstructor } from 'onnxruntime-common';

export interface OpenCommand {
  readonly kind: 'open';
  readonly modelPath: string;
  /** Of external data, relative to the model. */
  readonly externalFiles: readonly string[];
  readonly engine: 'native' | 'wasm' | 'auto';
  readonly level: OptimizationLevel;
  readonly threads: number;
}

/** Of ONNX Runtime's graph optimisation. It changes the order of sums, and beyond `basic` the arithmetic of quantised layers. */
export type OptimizationLevel = 'disabled' | 'basic' | 'all';

export interface RunCommand {
  readonly kind: 'run';
  readonly inputs: Tensors;
}

export interface Answer {
  readonly outputs?: Tensors;
  readonly error?: { readonly code: string; readonly message: string };
}

interface Opened {
  readonly session: InferenceSession;
  readonly TensorClass: TensorConstructor;
}

/** Node 24 has it, and ONNX Runtime then insists on it for float16. */
const Half = (globalThis as { Float16Array?: new (buffer: ArrayBufferLike, offset: number, length: number) => object })
  .Float16Array;

let opened: Opened | undefined;

process.on('disconnect', () => process.exit());
process.on('message', (command: OpenCommand | RunCommand) => {
  void handle(command).then(answer => process.send!(answer));
});

async function handle(command: OpenCommand | RunCommand): Promise<Answer> {
  try {
    if (command.kind === 'run') return { outputs: await run(opened!, command.inputs) };
    await opened?.session.release();
    opened = undefined;
    opened = await open(command);
    return {};
  } catch (error) {
    const code = command.kind === 'open' ? 'INVALID_MODEL' : 'ENGINE';
    return { error: { code, message: error instanceof Error ? error.message : String(error) } };
  }
}

async function open(command: OpenCommand): Promise<Opened> {
  const { engine, modelPath, level, threads } = command;
  const options = {
    graphOptimizationLevel: level,
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    // As in the engine: this fusion kills the process for some models (packages/engine/src/onnx-runtime.ts).
    extra: { optimization: { disable_specified_optimizers: 'ConvAddActivationFusion' } },
  } as const;
  const native = engine === 'wasm' ? undefined : await loadNative(engine);
  if (native !== undefined) {
    return { session: await native.InferenceSession.create(modelPath, options), TensorClass: native.Tensor };
  }
  const web = await import('onnxruntime-web');
  web.env.logLevel = 'error';
  web.env.wasm.numThreads = threads;
  const externalData = await Promise.all(
    command.externalFiles.map(async file => ({
      path: file,
      data: await readFile(path.join(path.dirname(modelPath), file)),
    })),
  );
  const session = await web.InferenceSession.create(await readFile(modelPath), {
    ...options,
    executionProviders: ['wasm'],
    ...(externalData.length === 0 ? {} : { externalData }),
  });
  return { session, TensorClass: web.Tensor };
}

/** undefined where no native build exists and `engine` is 'auto'. */
async function loadNative(engine: 'native' | 'auto') {
  try {
    return (await import('onnxruntime-node')).default;
  } catch (error) {
    if (engine === 'auto') return undefined;
    throw error;
  }
}

async function run({ session, TensorClass }: Opened, inputs: Tensors): Promise<Tensors> {
  const feeds = Object.entries(inputs).map(([name, value]) => [name, toRuntime(value, TensorClass)] as const);
  // Sequences and maps nobody can fetch.
  const names = session.outputMetadata.filter(({ isTensor }) => isTensor).map(({ name }) => name);
  const results = await session.run(Object.fromEntries(feeds), names);
  return Object.fromEntries(names.map(name => [name, fromRuntime(results[name]!)]));
}

function toRuntime({ dtype, shape, data }: Tensor, TensorClass: TensorConstructor): OrtTensor {
  const values =
    dtype === 'float16' && Half !== undefined && !Array.isArray(data)
      ? new Half(data.buffer, data.byteOffset, data.length)
      : data;
  return new TensorClass(dtype as OrtTensor.Type, values as Float32Array, shape);
}

function fromRuntime({ type, dims, data }: OrtTensor): Tensor {
  const bits = data as Uint16Array;
  const values = type === 'float16' ? new Uint16Array(bits.buffer, bits.byteOffset, bits.length) : data;
  return { dtype: type as DType, shape: dims, data: values };
}
