/** An answer is the uncoded model's, to float32 rounding. */
import { evaluate, type Program } from '../evaluate.js';
import { valueOf } from '../sim-engine.js';
import type { RequestRecord, Violation } from './request.js';

/** Of the largest value: float32 rounding, times what a decode of so few blocks can make of it. */
const TOLERANCE = 2e-4;

export function checkExact(requests: readonly RequestRecord[]): Violation[] {
  return requests.flatMap(({ number, input, program, outcome }) => {
    if ('error' in outcome) return [];
    const fault = difference(outcome.output.data, outcome.output.shape, program, input);
    return fault === undefined ? [] : [`request ${number} has a wrong answer: ${fault}`];
  });
}

function difference(
  got: Float32Array,
  shape: readonly number[],
  program: Program,
  input: RequestRecord['input'],
): string | undefined {
  const wanted = evaluate(program, new Map([['x', valueOf(input)]])).outputs[0]!;
  if (shape.join() !== wanted.shape.join()) return `its shape is [${shape.join()}], not [${wanted.shape.join()}]`;
  const largest = wanted.data.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 1);
  const at = wanted.data.findIndex((value, i) => !isClose(got[i]!, value, TOLERANCE * largest));
  return at < 0 ? undefined : `value ${at} is ${got[at]}, not ${wanted.data[at]}`;
}

function isClose(got: number, wanted: number, tolerance: number): boolean {
  return Math.abs(got - wanted) <= tolerance || Object.is(got, wanted);
}
