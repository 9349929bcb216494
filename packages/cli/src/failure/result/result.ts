/**
 * What a run of `kofn bench failure` leaves, as its JSON file has it: the contract between what runs cells (run.ts), what shows them
 * (report/) and what compares them (compare.ts). `z.toJSONSchema(runResult)` is the schema for others.
 *
 * An estimate is a figure with its 95 % interval (statistics.ts); null where there are too few samples for the figure.
 */
import { z } from 'zod';

export const RESULT_SCHEMA = 'kofn-failure-bench/1';

const estimate = z.object({ value: z.number(), low: z.number(), high: z.number() });
const maybe = estimate.nullable();

/** The figure over the baseline's, of cells that have fault, link, workload, load and cost in common. */
const ratios = z.object({
  /** Name of the cell that is the baseline. */
  cell: z.string(),
  p50: maybe,
  p90: maybe,
  p99: maybe,
  p999: maybe,
  /** p99.9 minus median, over the baseline's. */
  tailGap: maybe,
  /** Of `busyMsPerRequest`. */
  busy: z.number().nullable(),
});

const fault = z.object({
  repeat: z.int(),
  /** Number in its repeat of the request that it came with, from 0. */
  request: z.int(),
  kind: z.string(),
  workers: z.array(z.int()),
  /** Milliseconds from the beginning of its repeat. */
  atMs: z.number(),
  /** Killed or stopped while it held the request; null for faults that do not aim at a request. */
  hit: z.boolean().nullable(),
  /** From the fault to the next answer that came; null when none came any more. */
  nextAnswerMs: z.number().nullable(),
});

const phase = z.object({ requests: z.int(), lost: z.int(), p50: maybe, p99: maybe });

export const cellResult = z.object({
  /** Unique in the run. */
  name: z.string(),
  strategy: z.string(),
  /** The strategy in words, with k and r. */
  what: z.string(),
  fault: z.string(),
  link: z.string(),
  workload: z.string(),
  /** The device of a worker: "native", or what is stated, before `what` slows it for equal compute. */
  device: z.string(),
  /** What is equal between the strategies of this comparison: the number of workers, or the compute of all workers together. */
  equal: z.enum(['workers', 'compute']),
  workers: z.int(),
  k: z.int(),
  r: z.int(),
  load: z.object({ kind: z.enum(['closed', 'open']), everyMs: z.number().nullable() }),
  seed: z.int(),
  repeats: z.int(),
  /** What is emulated, and how: one sentence each. */
  emulated: z.array(z.string()),
  /** False when it was interrupted: then it has fewer requests than it was to have. */
  complete: z.boolean(),
  requests: z.int(),
  answered: z.int(),
  lost: z.int(),
  wrong: z.int(),
  recovered: z.object({ lost: z.int(), late: z.int() }),
  /** Blocks that the master computed, or that another worker was asked for. */
  computedHere: z.int(),
  resent: z.int(),
  /** Of answered requests; from the moment it was due in open loop. A percentile with fewer than 10 samples beyond it is null. */
  latencyMs: z.object({ p50: maybe, p90: maybe, p99: maybe, p999: maybe, max: z.number().nullable() }),
  /** Requests before any fault and after all healed, those that a fault hit, those that began while one was on. */
  phases: z.object({ healthy: phase, hit: phase, degraded: phase }),
  /** Median of the requests that were hit, over the median of those that began with the worker gone. */
  addedLatency: maybe,
  faults: z.array(fault),
  faultToAnswerMs: z.object({ p50: z.number().nullable(), max: z.number().nullable(), unanswered: z.int() }).nullable(),
  bytesPerRequest: z.object({ sent: z.number(), received: z.number() }),
  /** Processor time over all machines, measured. */
  cpuMsPerRequest: z.number(),
  /** Time that the emulated devices were busy; null where none is emulated. */
  deviceMsPerRequest: z.number().nullable(),
  /** The energy proxy: `deviceMsPerRequest` where devices are emulated, else `cpuMsPerRequest`. */
  busyMsPerRequest: z.number(),
  ratios: z.object({ uncoded: ratios.nullable(), replication: ratios.nullable() }),
  /** Errors of lost requests by code, with the first message of each. */
  failures: z.array(z.object({ code: z.string(), count: z.int(), message: z.string() })),
  /** Every reply that was kept (config: arrivals), milliseconds from its layer's dispatch; null where none are. */
  arrivals: z.object({ worker: z.array(z.int()), ms: z.array(z.number()) }).nullable(),
  /** Every request in order: when it was due, ms from the beginning of its repeat, and its latency, null when lost. */
  samples: z.array(z.object({ repeat: z.int(), atMs: z.array(z.number()), ms: z.array(z.number().nullable()) })),
});

export const runResult = z.object({
  schema: z.literal(RESULT_SCHEMA),
  name: z.string(),
  description: z.string(),
  /** The command line that made it. */
  command: z.string(),
  seed: z.int(),
  startedAt: z.iso.datetime(),
  seconds: z.number(),
  /** False when the run was interrupted. */
  complete: z.boolean(),
  environment: z.object({
    cpu: z.string(),
    cores: z.int(),
    memoryBytes: z.number(),
    os: z.string(),
    node: z.string(),
    kofn: z.string(),
    engine: z.string(),
    /** Addresses of a real cluster; empty for local workers. */
    hosts: z.array(z.string()),
  }),
  /** Ratios that the run was made to state, whichever way they fall, each with one sentence why. */
  claims: z.array(z.object({ what: z.string(), estimate: maybe, why: z.string() })),
  /** Cells that could not be measured, or not to their end, and why. */
  failedCells: z.array(z.object({ name: z.string(), code: z.string(), message: z.string() })),
  cells: z.array(cellResult),
});

export type Estimate = z.infer<typeof estimate>;
export type Ratios = z.infer<typeof ratios>;
export type FaultResult = z.infer<typeof fault>;
export type Phase = z.infer<typeof phase>;
export type CellResult = z.infer<typeof cellResult>;
export type RunResult = z.infer<typeof runResult>;
