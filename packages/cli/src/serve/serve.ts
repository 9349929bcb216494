/** `kofn serve MODEL…`: check everything, start or reach the workers, take the ports, deploy, serve until a signal comes, drain. */
import { readFile } from 'node:fs/promises';
import { KofnError, systemClock } from '@kofn/core';
import type { OnLoss } from '@kofn/master';
import {
  logFleet,
  registerPage,
  startServer,
  type AccessOptions,
  type RunningServer,
  type ServerOptions,
} from '@kofn/master/serve';
import { parseListen } from '@kofn/wire';
import { createLogger, parseSize } from '@kofn/worker';
import { stringify } from 'yaml';
import { EXIT_OK } from '../terminal/exit.js';
import { localFaultButtons } from './fault-buttons.js';
import type { ModelConfig } from './config-schema.js';
import type { Shapes } from '../options/arguments.js';
import { modelFiles, type LabelsFile } from './models.js';
import { Stopping } from './stopping.js';
import { openDeployBar, workerCount, Workers, type ClusterArguments, type CodeArguments } from '../workers/session.js';

export interface ServeArguments extends ClusterArguments, CodeArguments {
  readonly models: readonly ModelConfig[];
  readonly onLoss: OnLoss;
  readonly labels?: readonly LabelsFile[];
  readonly shape?: Shapes;
  readonly grpc?: string;
  readonly http?: string;
  readonly deadline?: number;
  readonly maxQueue?: number;
  readonly maxRunning?: number;
  readonly maxBatch?: number;
  readonly maxDelay?: number;
  readonly maxMessage?: string;
  readonly maxConnections?: number;
  readonly clientTimeout?: number;
  readonly tokenFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly insecure?: boolean;
  readonly allowFaults?: boolean;
  readonly logLevel?: string;
  readonly config?: string;
  readonly printConfig?: boolean;
  readonly json?: boolean;
}

const GRPC_PORT = 8001;
const HTTP_PORT = 8000;
const OFF = 'off';

/** Serves until a signal comes; returns the exit code. Throws what is wrong with the arguments before any process starts. */
export async function serve(args: ServeArguments, { version }: { readonly version: string }): Promise<number> {
  if (args.printConfig === true) {
    const { config: _config, printConfig: _printConfig, json: _json, labels: _labels, shape: _shape, ...rest } = args;
    process.stdout.write(stringify(rest));
    return EXIT_OK;
  }
  if (args.models.length === 0) {
    throw new KofnError('INVALID_ARGUMENT', 'nothing to serve: give MODEL files, or models in a --config');
  }
  if (workerCount(args) === undefined) {
    throw new KofnError('INVALID_ARGUMENT', 'no workers: give --workers HOST:PORT,HOST:PORT,… or --local N');
  }
  const access = await accessOf(args);
  if (args.allowFaults === true && (args.local === undefined || access.token === undefined)) {
    throw new KofnError('INVALID_ARGUMENT', '--allow-faults takes --local N and a token (--token-file, or KOFN_TOKEN)');
  }
  const { grpc = `:${GRPC_PORT}`, http = `:${HTTP_PORT}`, maxRunning = 64, logLevel = 'info' } = args;
  const logger = createLogger('kofn serve', logLevel);
  const options: Omit<ServerOptions, 'cluster' | 'onProgress' | 'signal'> = {
    version,
    models: await modelFiles(args.models, args),
    grpc: grpc === OFF ? undefined : parseListen('--grpc', grpc, GRPC_PORT),
    http: http === OFF ? undefined : parseListen('--http', http, HTTP_PORT),
    deadlineMs: args.deadline,
    maxQueue: args.maxQueue,
    maxRunning,
    maxBatch: args.maxBatch,
    maxDelayMs: args.maxDelay,
    maxMessageBytes: args.maxMessage === undefined ? undefined : parseSize('--max-message', args.maxMessage),
    maxConnections: args.maxConnections,
    clientTimeoutMs: args.clientTimeout,
    onWarning: message => logger.warn(message),
    ...access,
  };
  using stopping = new Stopping();
  const { signal } = stopping;
  try {
    await using workers = await Workers.open({ ...args, maxInFlight: maxRunning }, [], signal);
    const { cluster } = workers;
    await using running = await (async () => {
      using bar = openDeployBar();
      const faults = args.allowFaults === true ? localFaultButtons(workers.local!) : undefined;
      return startServer(
        { ...options, cluster, signal, onProgress: (_model, progress) => bar.onProgress(progress) },
        (app, server) => registerPage(app, server, { faults }),
      );
    })();
    logFleet(running.server, logger);
    announce(running, args.json === true);
    const { reason } = await stopping.asked;
    const since = systemClock.now();
    logger.info(`${reason}: answering what was taken; one more signal ends it at once`);
    await running.drain();
    logger.info(`finished after ${Math.round(systemClock.now() - since)} ms`);
    return EXIT_OK;
  } catch (error) {
    if (stopping.exitCode === undefined) throw error;
    return stopping.exitCode;
  }
}

function announce({ server, grpcAddress, httpAddress }: RunningServer, json: boolean): void {
  const models = server.models().map(({ name, version }) => ({ name, version }));
  const { pid } = process;
  if (json) {
    const addresses = { grpc: grpcAddress ?? null, http: httpAddress ?? null };
    process.stdout.write(`${JSON.stringify({ ...addresses, pid, models })}\n`);
    return;
  }
  const where = [
    ...(grpcAddress === undefined ? [] : [`gRPC on ${grpcAddress}`]),
    ...(httpAddress === undefined ? [] : [`HTTP on ${httpAddress}`]),
  ];
  const what = models.map(({ name, version }) => `${name}:${version}`).join(', ');
  process.stdout.write(`kofn serves ${what}: ${where.join(', ')} (pid ${pid})\n`);
}

/** Token and TLS. Throws INVALID_ARGUMENT, NOT_FOUND; never with a part of a file in the message. */
async function accessOf({ tokenFile, tlsCert, tlsKey, insecure }: ServeArguments): Promise<AccessOptions> {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new KofnError('INVALID_ARGUMENT', 'TLS takes both --tls-cert and --tls-key');
  }
  const fromFile =
    tokenFile === undefined ? undefined : (await read('--token-file', tokenFile)).toString('utf8').trim();
  const token = fromFile ?? (process.env['KOFN_TOKEN'] || undefined);
  const tls =
    tlsCert === undefined || tlsKey === undefined
      ? undefined
      : { cert: await read('--tls-cert', tlsCert), key: await read('--tls-key', tlsKey) };
  return { token, tls, insecure };
}

function read(option: string, file: string): Promise<Buffer> {
  return readFile(file).catch((cause: NodeJS.ErrnoException) => {
    throw new KofnError('NOT_FOUND', `${option} ${file}: cannot be read (${cause.code})`, { cause });
  });
}
