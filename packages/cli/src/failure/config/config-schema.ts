/**
 * The fields of a config of `kofn bench failure`, and what they mean: `kofn bench schema` prints them as JSON Schema. config.ts reads
 * the file, presets.ts has what is built in.
 */
import { z } from 'zod';

const whole = (min: number, max: number) => z.int().min(min).max(max);
const ms = z.number().min(0).max(3_600_000);
const rate = z.number().min(0).max(1);
const label = z.string().min(1).max(80);

/** One value, or several: then the entry stands for a cell of each. */
const oneOrMore = <T extends z.ZodType>(of: T) =>
  z.union([of, z.array(of).min(1)]).transform(given => (Array.isArray(given) ? given : [given]) as z.infer<T>[]);

export const FAULT_KINDS = [
  'none',
  'kill',
  'pause',
  'restart',
  'slow',
  'stalls',
  'loss',
  'partition',
  'corrupt',
] as const;

/** Kinds that meet single messages. */
export const OF_MESSAGES: readonly (typeof FAULT_KINDS)[number][] = ['stalls', 'loss', 'corrupt'];

export const faultFields = z
  .strictObject({
    kind: z
      .enum(FAULT_KINDS)
      .describe(
        'kill: SIGKILL. pause: SIGSTOP, later SIGCONT. restart: SIGTERM and a new process at once. slow: the device takes `factor` ' +
          'times as long. stalls: the station is silent for a while. loss: a frame is lost, which a TCP connection sees as ' +
          'a retransmission timeout. partition: replies do not come back, requests arrive. corrupt: one bit of a reply is flipped.',
      ),
    when: z
      .enum(['mid-request', 'between'])
      .default('mid-request')
      .describe('kill and pause: while the worker holds the request (by the dispatch hook), or between two requests'),
    workers: whole(1, 64).default(1).describe('how many workers it meets at once, drawn from the seed'),
    first: whole(0, 1e7).optional().describe('request that it first comes with; default: a quarter of the requests'),
    every: whole(1, 1e7).optional().describe('then again after so many requests; default: once'),
    times: whole(1, 1e6).default(1).describe('how often in a repeat, at most'),
    lasts: z
      .union([whole(1, 1e7), z.literal('forever')])
      .optional()
      .describe(
        'requests until it is undone: default half of `every`, or forever when it comes once (restart: a quarter of the requests)',
      ),
    rate: rate
      .optional()
      .describe('stalls, loss, corrupt: probability for each request and worker, in place of first, every, times'),
    minMs: ms.default(50).describe('stalls: shortest'),
    maxMs: ms.default(500).describe('stalls: longest, drawn evenly'),
    rtoMs: ms.default(200).describe('loss: retransmission timeout (Linux: 200 ms at least)'),
    pauseMs: ms
      .min(1)
      .default(1_000)
      .describe('pause on a real cluster, where a process that stands still takes no order to go on'),
    factor: z.number().gt(1).max(1000).default(4).describe('slow: how many times as long a run takes'),
  })
  .superRefine((fault, context) => {
    const isOfMessages = OF_MESSAGES.includes(fault.kind);
    const refuse = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message });
    if (fault.rate !== undefined && !isOfMessages)
      refuse('rate', `is for ${OF_MESSAGES.join(', ')}; give first, every, times`);
    if (fault.rate !== undefined && (fault.first ?? fault.every) !== undefined)
      refuse('rate', 'stands in place of first and every');
    if (fault.times > 1 && fault.every === undefined) refuse('times', 'more than once takes `every`');
    if (fault.every !== undefined && fault.lasts === 'forever' && fault.kind !== 'restart')
      refuse('lasts', 'forever, it cannot come again');
    if (fault.minMs > fault.maxMs) refuse('minMs', `${fault.minMs} is more than maxMs, ${fault.maxMs}`);
  });

export const linkFields = z.strictObject({
  delayMs: ms.optional().describe('each way, every frame'),
  jitter: z
    .strictObject({
      mu: z.number().min(-20).max(20).describe('mean of its logarithm'),
      sigma: z.number().min(0).max(10).describe('standard deviation of its logarithm'),
    })
    .optional()
    .describe('lognormal, in ms, added to the delay of each frame'),
  megabitsPerSecond: z.number().gt(0).max(1e5).optional().describe('a line of its own for each worker, each way'),
  sharedMegabitsPerSecond: z
    .number()
    .gt(0)
    .max(1e5)
    .optional()
    .describe('one token bucket for all workers and both directions: air'),
  stalls: z
    .strictObject({
      rate: rate.describe('probability of a frame'),
      minMs: ms.describe('shortest'),
      maxMs: ms.describe('longest, drawn evenly'),
      burst: rate.describe('probability of the next frame of that station, the same way'),
    })
    .optional()
    .describe('a frame stalls with probability `rate`; the next one of that station with probability `burst`'),
  loss: z
    .strictObject({ rate: rate.describe('probability of a frame'), rtoMs: ms.describe('the timeout') })
    .optional()
    .describe('a lost frame comes after a timeout, doubled for each further loss'),
  trace: z
    .string()
    .min(1)
    .optional()
    .describe('a recorded trace: Mahimahi, or CSV with ms,delayMs,megabitsPerSecond; relative to the config'),
  rateBy: z
    .enum(['proxy', 'tbf'])
    .default('proxy')
    .describe('megabitsPerSecond: in the user-space proxy, or by the kernel (tbf in network namespaces; root, Linux)'),
});

export const workloadFields = z
  .strictObject({
    fc: z
      .tuple([whole(1, 65536), whole(1, 65536)])
      .optional()
      .describe('one fully connected layer: outputs, inputs'),
    conv: z
      .strictObject({
        channels: z.tuple([whole(1, 8192), whole(1, 8192)]).describe('out, in'),
        kernel: whole(1, 31).describe('height and width of the filter'),
        size: whole(1, 2048).describe('height and width of the input'),
      })
      .optional()
      .describe('one convolution, padded to keep the size'),
    network: z
      .enum(['fashion-cnn', 'alexnet', 'vgg16'])
      .optional()
      .describe('fashion-cnn is trained; the others have random weights'),
    onnx: z
      .string()
      .min(1)
      .optional()
      .describe('an ONNX file, relative to the config; its inputs are drawn from the seed'),
    inputs: whole(1, 1000).default(8).describe('how many different inputs the requests go round'),
    layers: z
      .union([z.enum(['all', 'auto']), z.array(z.string())])
      .default('all')
      .describe('linear layers to distribute, as in `kofn run --layers`'),
  })
  .refine(
    ({ fc, conv, network, onnx }) => [fc, conv, network, onnx].filter(given => given !== undefined).length === 1,
    {
      error: 'give one of fc, conv, network, onnx',
    },
  );

const device = z.union([
  z.literal('native'),
  z.strictObject({
    gflops: z
      .number()
      .gt(0)
      .max(1e6)
      .describe('a run takes 2 x multiply-adds / gflops at least; the rest is waited out'),
    overheadMs: ms.default(0).describe('and so long beside that'),
    arithmetic: z
      .boolean()
      .default(true)
      .describe('false: an engine without arithmetic, which computes each input once and then answers from memory'),
  }),
  z.strictObject({ cpuQuota: z.number().gt(0).max(1).describe('part of a core, by cgroup (Linux, permitted)') }),
]);

const load = z.union([
  z.literal('closed').transform(() => ({ kind: 'closed' as const })),
  z
    .strictObject({ everyMs: z.number().gt(0).max(3_600_000).describe('between the times that two requests are due') })
    .transform(({ everyMs }) => ({ kind: 'open' as const, everyMs })),
]);

const STRATEGY = /^(uncoded|failover|2mr|hedged|cdc-\d{1,2}|cdc-\d{1,2}-2mr)$/;
const strategy = z
  .string()
  .regex(STRATEGY, 'is not one of uncoded, failover, 2mr, hedged, cdc-R (R parity blocks), cdc-R-2mr');

const cellFields = {
  strategy: oneOrMore(strategy).describe(
    'uncoded: k = n, a loss loses requests. failover: uncoded; a loss is detected, the model reloaded on who is left, the request ' +
      'tried again. 2mr: each block on two workers. hedged: uncoded, and what is late after the p95 is asked of a second holder. ' +
      'cdc-R: R parity blocks. cdc-R-2mr: that for linear layers, and everything else on two workers each (default uncoded)',
  ),
  fault: oneOrMore(label).describe('names of `faults`, or of one that is built in (default none)'),
  link: oneOrMore(label).describe('names of `links`, or loopback, wired, wifi (default loopback)'),
  workload: oneOrMore(label).describe(
    'names of `workloads`, or fc-2000, fashion-cnn, alexnet, vgg16 (default fc-2000)',
  ),
  equal: oneOrMore(z.enum(['workers', 'compute'])).describe(
    'workers: every strategy has so many workers. compute: every strategy keeps `workers` data blocks on as many machines as it needs, ' +
      'and those are slower, so that all together compute as fast (default workers)',
  ),
  workers: oneOrMore(whole(1, 64)).describe('machines; see `equal` (default 5)'),
  requests: whole(1, 1e6).describe('measured requests of each repeat (default 100)'),
  warmUp: whole(0, 1e5).describe('requests before them, not counted (default 10)'),
  load: load.describe(
    'closed: one after the other. {everyMs}: open, one each so many ms whatever the answers do; latency counts from when it was due (default closed)',
  ),
  deadlineMs: z.number().min(1).max(3_600_000).describe('a request without an answer by then is lost (default 10000)'),
  device: device.describe('native: as fast as this machine is (default); or stated'),
  arrivals: z
    .boolean()
    .describe(
      'keep when each reply came, over all layers (of uncoded cells: all; of others: up to the k-th; default false)',
    ),
  failover: z
    .strictObject({
      detectMs: z
        .number()
        .min(100)
        .max(600_000)
        .default(2_000)
        .describe('silence after which a worker is given up; a connection that breaks is seen at once'),
      reloadMs: ms.default(0).describe('what a reload takes at least; 0: as long as it takes here'),
    })
    .describe('the times of the strategy failover'),
};

const claim = z.strictObject({
  what: z
    .enum(['p50', 'p90', 'p99', 'p999', 'tailGap', 'busy'])
    .describe('of which figure; tailGap: p99.9 less the median'),
  of: label.describe('name of a cell'),
  to: label.describe('name of the cell that it is set against'),
  why: z.string().min(1).max(500).describe('one sentence, stated with the ratio whichever way it falls'),
});

export const configSchema = z.strictObject({
  name: label.describe('of the run: its report is in kofn-bench/NAME'),
  description: z.string().max(2000).default('').describe('stands at the head of the report'),
  seed: whole(0, 2 ** 32 - 1)
    .default(1)
    .describe('of faults, links, weights and inputs'),
  repeats: whole(1, 100)
    .default(1)
    .describe(
      'deployments of each cell, in turn with the others; intervals of one repeat do not hold what differs between runs',
    ),
  links: z.record(label, linkFields).default({}).describe('own links; they may have the name of a built-in one'),
  faults: z.record(label, faultFields).default({}).describe('own faults, likewise'),
  workloads: z
    .record(label, workloadFields)
    .default({})
    .describe('own workloads, likewise; each one of fc, conv, network, onnx'),
  defaults: z.strictObject(partial(cellFields)).default({}).describe('for cells that do not say'),
  cells: z
    .array(z.strictObject({ name: label.optional().describe('default: made of what it has'), ...partial(cellFields) }))
    .min(1)
    .describe('each one cell, or with lists the product of them'),
  claims: z.array(claim).default([]).describe('ratios to state with their interval and a sentence'),
});

export type Fault = z.infer<typeof faultFields>;
export type LinkConfig = z.infer<typeof linkFields>;
export type Workload = z.infer<typeof workloadFields>;
export type Device = z.infer<typeof device>;
export type Load = z.infer<typeof load>;
export type Claim = z.infer<typeof claim>;

function partial<T extends Record<string, z.ZodType>>(fields: T): { [K in keyof T]: z.ZodOptional<T[K]> } {
  return Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, type.optional()])) as {
    [K in keyof T]: z.ZodOptional<T[K]>;
  };
}
