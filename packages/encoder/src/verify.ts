/** Looks at a block before it may shape the output. */
import { elementCount, formatShape, isFiniteTensor, KofnError, type DType, type Shape, type Tensor } from '@kofn/core';

/** What is wrong with `block`: DTYPE_MISMATCH, SHAPE_MISMATCH or NON_FINITE; undefined when it may be used. */
export function verifyBlock(block: Tensor, expected: { dtype: DType; shape: Shape }): KofnError | undefined {
  if (block.dtype !== expected.dtype) {
    return new KofnError('DTYPE_MISMATCH', `the reply is ${block.dtype}, ${expected.dtype} was expected`);
  }
  const sameShape =
    block.shape.length === expected.shape.length && block.shape.every((s, i) => s === expected.shape[i]);
  if (!sameShape || block.data.length !== elementCount(expected.shape)) {
    return new KofnError(
      'SHAPE_MISMATCH',
      `the reply has shape ${formatShape(block.shape)} and ${block.data.length} elements, ` +
        `${formatShape(expected.shape)} was expected`,
    );
  }
  return isFiniteTensor(block)
    ? undefined
    : new KofnError('NON_FINITE', 'the reply to a finite input has NaN or infinity');
}
