/**
 * Everything that `kofn serve` may be told, and what it means: the same names stand in a config file, as flags (maxQueue is
 * --max-queue) and in the environment (KOFN_MAX_QUEUE). `kofn serve --schema` prints it as JSON Schema.
 */
import { CODE_NAMES } from '@kofn/encoder';
import { ENGINE_NAMES } from '@kofn/engine';
import { DEFAULT_WORKER_PORT } from '@kofn/wire/address';
import { LOG_LEVELS } from '@kofn/worker';
import { z } from 'zod';
import { MAX_LOCAL_WORKERS } from '../workers/shared-options.js';

const whole = (min: number, max: number) => z.int().min(min).max(max);
const ms = (min: number) =>
  z
    .number()
    .min(min)
    .max(2 ** 31 - 1);
const text = z.string().min(1);

/** How a model is coded; what a model does not say is as for all. */
const codeFields = {
  parity: whole(0, 1024).describe('parity blocks: so many workers may fail (default: 1)'),
  code: z.enum(CODE_NAMES).describe('the code (default: uncoded for parity 0, sum for 1, else rotation)'),
  layers: z
    .union([z.enum(['all', 'auto']), z.array(text).min(1)])
    .describe('all that can be coded (default), auto: those that pay, or their names'),
  hedge: z
    .union([ms(0), z.literal('p95')])
    .describe(
      'ask a second worker for blocks later than so many ms, or than 95 % of the last replies (default: never)',
    ),
  segments: z
    .enum(['local', 'replicated'])
    .describe('what is not coded runs on the master (default), or on two workers at once'),
  verify: z
    .enum(['none', 'fingerprint', 'audit'])
    .describe(
      'whether what workers compute is checked: not (default), each reply before it is used, or behind the answer',
    ),
  onLoss: z
    .enum(['local', 'resend', 'fail'])
    .describe('fewer than k workers left: compute here (default), have others compute, or fail'),
};

const modelFields = z.strictObject({
  name: text.optional().describe('as clients call it (default: that of the file, without .onnx)'),
  version: whole(1, 999_999_999).default(1).describe('requests that name none get the highest that is loaded'),
  file: text.describe('the ONNX file, relative to the config'),
  shapes: z
    .record(z.string(), z.array(whole(0, 2 ** 31 - 1)))
    .optional()
    .describe('sizes of inputs to plan with, by name; needed where a size other than the first is open'),
  labels: text.optional().describe('a file with the class names, one a line, in the order of the outputs'),
  ...z.object(codeFields).partial().shape,
});

/** What the command's own flags take; the others are those of all commands (shared-options.ts). */
export const serverFields = {
  grpc: text.describe(
    'where gRPC listens, HOST:PORT; without a port 8001, port 0 takes a free one, "off" is nowhere (default: 127.0.0.1)',
  ),
  http: text.describe(
    'where HTTP listens, HOST:PORT; without a port 8000, port 0 takes a free one, "off" is nowhere (default: 127.0.0.1)',
  ),
  deadline: ms(1).describe('longest time of a request, in ms, the wait included (default: 60000)'),
  maxQueue: whole(1, 65_536).describe(
    'requests that may wait; more are refused with when to come again (default: 256)',
  ),
  maxRunning: whole(1, 65_536).describe('requests that run at once (default: 64)'),
  maxBatch: whole(1, 65_536).describe('join requests along the first dimension, up to so many rows (default: 1, none)'),
  maxDelay: ms(0).describe('how long, in ms, a request waits for others to be joined with (default: 5)'),
  maxMessage: text.describe('largest message and body, such as 64MiB (default: 256MiB)'),
  maxConnections: whole(1, 1e6).describe('connections at once, of each of gRPC and HTTP (default: 4096)'),
  clientTimeout: ms(100).describe(
    'longest, in ms, that a client may take to send a request over HTTP (default: 60000)',
  ),
  tokenFile: text.describe('a file with the token that every call has to bring (KOFN_TOKEN: the token itself)'),
  tlsCert: text.describe('certificate in PEM, for gRPC and HTTP'),
  tlsKey: text.describe('its key in PEM'),
  allowFaults: z
    .boolean()
    .describe('let the page kill, pause and slow workers, for a demonstration; takes --local and a token'),
  logLevel: z
    .enum(LOG_LEVELS)
    .describe('what is logged to standard error, as JSON: each change of the fleet is info (default: info)'),
  insecure: z.boolean().describe('beyond the loopback interface, go without a token or TLS'),
};

export const serveConfigSchema = z
  .strictObject({
    models: z.array(modelFields).min(1).describe('what is served; models of the command line stand in their place'),
    workers: z
      .array(text)
      .min(1)
      .describe(`workers that run already, HOST:PORT each; without a port ${DEFAULT_WORKER_PORT}`),
    local: whole(1, MAX_LOCAL_WORKERS).describe('start so many workers on this machine, and stop them afterwards'),
    id: text.describe('who claims the shards: the same name finds its models again (default: a random one)'),
    engine: z.enum(['auto', ...ENGINE_NAMES]).describe('engine of master and local workers (default: auto)'),
    threads: whole(1, 1024).describe('threads of each engine (default: 1)'),
    ...codeFields,
    ...serverFields,
  })
  .partial();

export type ServeConfig = z.infer<typeof serveConfigSchema>;
export type ModelConfig = z.infer<typeof modelFields>;
