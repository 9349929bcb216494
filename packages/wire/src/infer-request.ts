/** What a server reads of a ModelInfer request beside its tensors: a worker and the server of a master alike. */
import { KofnError, type Tensors } from '@kofn/core';
import type { InferRequestMessage } from './protos.js';

/**
 * Milliseconds of the request's `timeout` parameter, which is in microseconds; undefined for none, and for 0, as Triton has it. Throws
 * INVALID_ARGUMENT.
 */
export function timeoutOf({ parameters }: Pick<InferRequestMessage, 'parameters'>): number | undefined {
  const parameter = parameters['timeout'];
  if (parameter === undefined) return undefined;
  return timeoutMs(parameter.int64_param ?? parameter.uint64_param);
}

/** Milliseconds of `microseconds`; undefined for 0. Throws INVALID_ARGUMENT. */
export function timeoutMs(microseconds: unknown): number | undefined {
  const isNumber = typeof microseconds === 'number' || typeof microseconds === 'string';
  const value = isNumber ? Number(microseconds) : NaN;
  if (Number.isSafeInteger(value) && value >= 0) return value === 0 ? undefined : value / 1000;
  throw new KofnError('INVALID_ARGUMENT', 'parameter timeout: must be a whole number of microseconds ≥ 0');
}

/** The outputs of `names`, or all when it names none. Throws INVALID_ARGUMENT (the model has no such output). */
export function selectOutputs(outputs: Tensors, names: readonly string[]): Tensors {
  if (names.length === 0) return outputs;
  return Object.fromEntries(
    names.map(name => {
      const output = Object.hasOwn(outputs, name) ? outputs[name] : undefined;
      if (output !== undefined) return [name, output];
      const there = Object.keys(outputs).join(', ');
      throw new KofnError('INVALID_ARGUMENT', `the model has no output "${name}"; it has ${there}`);
    }),
  );
}
