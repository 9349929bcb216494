/** ONNX TensorProto files (.pb), as the ONNX model zoo and `onnx.numpy_helper` write them: onnx.proto3, TensorProto. */
import { KofnError, type Tensor } from '@kofn/core';
import { constantValue, type OnnxModel } from '@kofn/graph';
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;

/** All that constantValue asks of a model: where external data is. A tensor file has none. */
const NO_EXTERNAL_DATA = {
  readExternal(): never {
    throw new KofnError('UNSUPPORTED', 'the tensor keeps its elements in another file; save it with them inside');
  },
} as Partial<OnnxModel> as OnnxModel;

/**
 * The tensor in `bytes`; `origin` (the file's name) goes into messages. Throws INVALID_ARGUMENT (not a TensorProto),
 * DATA_LOSS (fewer elements than its shape says), UNSUPPORTED (element type, external data).
 */
export function readOnnxTensor(bytes: Uint8Array, origin: string): Tensor {
  let proto: ReturnType<typeof onnx.TensorProto.decode>;
  try {
    proto = onnx.TensorProto.decode(bytes);
  } catch (cause) {
    throw new KofnError('INVALID_ARGUMENT', `${origin} is not an ONNX TensorProto, or it is cut off`, { cause });
  }
  if (!proto.dataType) {
    throw new KofnError('INVALID_ARGUMENT', `${origin} is not an ONNX TensorProto (it names no element type)`);
  }
  try {
    return constantValue(NO_EXTERNAL_DATA, proto);
  } catch (error) {
    if (!(error instanceof KofnError)) throw error;
    const code = error.code === 'SHAPE_MISMATCH' ? 'DATA_LOSS' : error.code;
    throw new KofnError(code, `${origin}: ${error.message}`, { cause: error });
  }
}
