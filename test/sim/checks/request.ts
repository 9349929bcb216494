/** What a simulation knows of one request when it is over: what the checkers judge. */
import type { Float32Tensor, KofnError } from '@kofn/core';
import type { RunReport } from '@kofn/master';
import type { Program } from '../evaluate.js';

export interface RequestRecord {
  readonly number: number;
  readonly input: Float32Tensor;
  /** Workers that had faults when it ran, or still have from before. */
  readonly afflicted: readonly number[];
  /** The uncoded model of the version that answered. */
  readonly program: Program;
  readonly startMs: number;
  readonly endMs: number;
  readonly deadlineMs: number;
  /** When its caller cancelled it. */
  readonly cancelledMs: number | undefined;
  /** When its caller closed the model or the cluster under it. */
  readonly closedMs: number | undefined;
  readonly outcome: { readonly output: Float32Tensor; readonly report: RunReport } | { readonly error: KofnError };
}

/** What a checker found wrong, in words. */
export type Violation = string;
