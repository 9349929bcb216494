/** How requests end, in words for the trace. */
import { isKofnError, KofnError, type Float32Tensor } from '@kofn/core';
import type { RequestRecord } from './checks/request.js';

/** What is no KofnError is a fault by itself. */
export function asKofnError(error: unknown): KofnError {
  if (isKofnError(error)) return error;
  return new KofnError('INTERNAL', `no KofnError: ${error instanceof Error ? (error.stack ?? '') : String(error)}`);
}

export function describeError({ code, message }: KofnError): string {
  return `failed: ${code} ${message}`;
}

export function describeAnswer({
  output,
  report,
}: Extract<RequestRecord['outcome'], { output: Float32Tensor }>): string {
  const layers = report.layers.map(({ name, decodeSet, erasures, computedHere, hedged }) => {
    const lost = erasures.map(({ worker, code }) => `; worker ${worker} ${code}`).join('');
    const late = hedged.length > 0 ? `; hedged ${hedged.join(' ')}` : '';
    return `${name} from ${decodeSet.join(' ')}${lost}${late}${computedHere.length > 0 ? `; here ${computedHere.join(' ')}` : ''}`;
  });
  const sum = output.data.reduce((a, b) => a + b, 0);
  return `answered: sum ${sum} (${layers.join(' | ')})`;
}
