/** What both builds of ONNX Runtime for JavaScript have in common: sessions, tensors, metadata. */
import { isNumericDType, KofnError, tensor, type Tensor, type Tensors } from '@kofn/core';
import type { InferenceSession, Tensor as OrtTensor, TensorConstructor } from 'onnxruntime-common';
import type { BackendSession } from './backend.js';
import type { ValueInfo } from './engine.js';

/** Node 24 has it, and ONNX Runtime then insists on it for float16. */
const Half = (globalThis as { Float16Array?: new (buffer: ArrayBufferLike, offset: number, length: number) => object })
  .Float16Array;

export function sessionOptions(threads: number): InferenceSession.SessionOptions {
  return {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    // Each session's arena keeps what its largest run took (docs/adr/0002-memory.md).
    enableCpuMemArena: false,
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    extra: {
      // A packed copy of the weights doubles memory and gains nothing at one row (docs/adr/0001-prepacking.md).
      session: { disable_prepacking: '1' },
      // Conv + Add with an addend that is an output of the model too: the fused node kills the process (1.27).
      optimization: { disable_specified_optimizers: 'ConvAddActivationFusion' },
    },
  };
}

/** Options of a session that writes the model to `file` as the basic optimisation leaves it, its weights beside it. */
export function normaliseOptions(file: string): InferenceSession.SessionOptions {
  return {
    ...sessionOptions(1),
    graphOptimizationLevel: 'basic',
    optimizedModelFilePath: file,
    extra: {
      session: {
        disable_prepacking: '1',
        optimized_model_external_initializers_file_name: 'weights.bin',
        optimized_model_external_initializers_min_size_in_bytes: '1024',
      },
    },
  };
}

export async function wrapSession(session: InferenceSession, TensorClass: TensorConstructor): Promise<BackendSession> {
  try {
    return wrap(session, TensorClass);
  } catch (error) {
    await session.release();
    throw error;
  }
}

function wrap(session: InferenceSession, TensorClass: TensorConstructor): BackendSession {
  return {
    inputs: session.inputMetadata.map(valueInfo),
    outputs: session.outputMetadata.map(valueInfo),
    async run(feeds) {
      const converted: Record<string, OrtTensor> = {};
      for (const [name, value] of Object.entries(feeds)) converted[name] = toRuntime(value, TensorClass);
      const results = await session.run(converted);
      const outputs: Record<string, Tensor> = {};
      for (const name of session.outputNames) outputs[name] = fromRuntime(name, results[name]!);
      return outputs satisfies Tensors;
    },
    release: () => session.release(),
  };
}

function valueInfo(metadata: InferenceSession.ValueMetadata): ValueInfo {
  if (!metadata.isTensor) {
    throw new KofnError('UNSUPPORTED', `the value "${metadata.name}" is a sequence or map; kofn runs tensors only`);
  }
  const { name, type, shape } = metadata;
  if (type !== 'string' && !isNumericDType(type)) {
    throw new KofnError(
      'UNSUPPORTED',
      `the value "${name}" has element type ${String(type)}, which kofn does not carry`,
    );
  }
  return { name, dtype: type, shape: shape.map(size => (isOpen(size) ? '' : size)) };
}

/** The size of an unnamed dimension is -1 to the runtime, which the WebAssembly build reports as an unsigned number. */
function isOpen(size: number | string): boolean {
  return size === -1 || size === 2 ** 32 - 1;
}

function toRuntime({ dtype, shape, data }: Tensor, TensorClass: TensorConstructor): OrtTensor {
  const values =
    dtype === 'float16' && Half !== undefined && !Array.isArray(data)
      ? new Half(data.buffer, data.byteOffset, data.length)
      : data;
  return new TensorClass(dtype as OrtTensor.Type, values as Float32Array, shape);
}

function fromRuntime(name: string, value: OrtTensor): Tensor {
  const { type, dims, data } = value;
  if (type !== 'string' && !isNumericDType(type)) {
    throw new KofnError('UNSUPPORTED', `output "${name}" has element type ${type}, which kofn does not carry`);
  }
  if (type !== 'float16') return tensor(type, dims, data);
  const bits = data as Uint16Array;
  return tensor(type, dims, new Uint16Array(bits.buffer, bits.byteOffset, bits.length));
}
