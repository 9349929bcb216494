/**
 * Requests without a pause, several at a time, each checked when it ends. What else happens in a run is told by their
 * numbers: `passed` is what a run waits with.
 *
 * Invariants
 * 1. A request that fails or answers wrongly is counted and described; the load goes on.
 * 2. `stop` resolves when every request has ended.
 */
import { abortable, KofnError, openScope, systemClock, type Tensors } from '@kofn/core';
import type { CodedModel, RunReport } from 'kofn';
import { compareOutputs, isWrong } from 'kofn/measure';
import { standStill } from '../support/stand-still.js';

const IN_FLIGHT = 4;
const DEADLINE_MS = 10_000;
/** A deadline is a timer: it may fire this much late, and as much more as the event loop stood still. */
const TIMER_SLACK_MS = 100;
const BLOCK_MS = 500;

export interface LoadOptions {
  readonly model: CodedModel;
  readonly inputs: (picture: number) => Tensors;
  /** What the uncoded model answers to each picture. */
  readonly expected: readonly Tensors[];
  /** What goes on, for the description of a failure. */
  readonly situation: () => string;
  readonly onEnded: (ended: number) => void;
  /** Requests at a time; default 4. */
  readonly inFlight?: number;
}

export class Load {
  readonly times: number[] = [];
  readonly failures: string[] = [];
  lost = 0;
  wrong = 0;
  /** Ended after their deadline. */
  late = 0;
  /** Times that the event loop stood still. */
  blocks = 0;
  readonly #options: LoadOptions;
  readonly #lanes: Promise<void>[];
  readonly #inFlight = new Set<number>();
  readonly #waiting = new Set<(request: number, report: RunReport | undefined) => void>();
  #begun = 0;
  #ended = 0;
  #blockNext = false;
  #isStopped = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#lanes = Array.from({ length: options.inFlight ?? IN_FLIGHT }, () => this.#lane());
  }

  /** Requests that have ended. */
  get ended(): number {
    return this.#ended;
  }

  /** Resolves when `count` requests have begun and ended from now on, and none is left that began before. */
  passed(count: number, deadlineMs: number): Promise<void> {
    const first = this.#begun;
    let left = count;
    return this.#until(deadlineMs, `${count} requests`, request => {
      if (request >= first) left--;
      return left <= 0 && [...this.#inFlight].every(other => other >= first);
    });
  }

  /** Resolves when an answer of `worker` has counted in a request that begins from now on, or when it `isIdle`. */
  usesWorker(worker: number, isIdle: () => boolean, deadlineMs: number): Promise<void> {
    const first = this.#begun;
    return this.#until(deadlineMs, `use of worker ${worker}`, (request, report) => {
      if (isIdle()) return true;
      if (request < first || report === undefined) return false;
      return report.layers.some(({ arrivals }) => arrivals.some(arrival => arrival.worker === worker));
    });
  }

  /** Resolves when `holds`, which is looked at now and whenever a request has ended. */
  async until(holds: () => boolean, deadlineMs: number, what: string): Promise<void> {
    if (!holds()) await this.#until(deadlineMs, what, holds);
  }

  /** Lets the event loop stand still for BLOCK_MS in the next request, as a long garbage collection or a careless caller would. */
  block(): void {
    this.#blockNext = true;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#lanes);
  }

  async #lane(): Promise<void> {
    while (!this.#isStopped) await this.#one(this.#begun++);
  }

  async #one(request: number): Promise<void> {
    const { model, inputs, expected, situation, onEnded } = this.#options;
    this.#inFlight.add(request);
    const [begin, blocksBefore, about] = [performance.now(), this.blocks, situation()];
    const picture = request % expected.length;
    let report: RunReport | undefined;
    try {
      const running = model.run(inputs(picture), { deadlineMs: DEADLINE_MS });
      if (this.#blockNext) setImmediate(() => this.#standStill());
      this.#blockNext = false;
      const result = await running;
      report = result.report;
      this.times.push(report.ms);
      if (isWrong(compareOutputs(result.outputs, expected[picture]!))) {
        this.wrong++;
        this.failures.push(`request ${request} (${about}): a wrong answer`);
      }
    } catch (error) {
      this.lost++;
      this.failures.push(`request ${request} (${about}): ${KofnError.from(error).message}`);
    }
    const blockedMs = (this.blocks - blocksBefore) * BLOCK_MS;
    if (performance.now() - begin > DEADLINE_MS + TIMER_SLACK_MS + blockedMs) this.late++;
    this.#inFlight.delete(request);
    this.#ended++;
    for (const look of [...this.#waiting]) look(request, report);
    onEnded(this.#ended);
  }

  #standStill(): void {
    this.blocks++;
    standStill(BLOCK_MS);
  }

  /** Until `isDone` says so of a request that has ended. */
  async #until(
    deadlineMs: number,
    what: string,
    isDone: (request: number, report: RunReport | undefined) => boolean,
  ): Promise<void> {
    using scope = openScope(systemClock, { deadlineMs, what });
    let look!: (request: number, report: RunReport | undefined) => void;
    const done = new Promise<void>(resolve => {
      look = (request, report) => {
        if (isDone(request, report)) resolve();
      };
    });
    this.#waiting.add(look);
    await abortable(done, scope.signal).finally(() => this.#waiting.delete(look));
  }
}
