/**
 * The command `kofn worker`: options in, the address as the first line of stdout, everything else to stderr: as JSON, one object a line,
 * once it listens.
 *
 * Invariants
 * 1. SIGTERM, SIGINT, SIGHUP and the end of npx drain and exit 0; one more signal ends the process at once.
 * 2. Errors that keep it from starting are one line on stderr: exit 2 for how it was called, 1 for what went wrong.
 */
import { isKofnError, KofnError, systemClock, type Clock } from '@kofn/core';
import type { EngineName } from '@kofn/engine';
import { DEFAULT_WORKER_PORT, formatAddress, isLoopback } from '@kofn/wire';
import { Command } from 'commander';
import { createLogger, LOG_LEVELS, type Logger } from './process/logs.js';
import { parseSize, parseWhole } from './options.js';
import { endNow } from './process/own-process.js';
import { startWorker, type RunningWorker } from './start.js';
import { StopRequests, type StopRequest } from './process/stop-requests.js';
import { VERSION } from './process/version.js';

interface Flags {
  listen: string;
  dataDir?: string;
  engine: string;
  threads?: string;
  maxMemory?: string;
  maxDisk?: string;
  maxMessage?: string;
  maxQueue?: string;
  json?: boolean;
  exitWithParent?: boolean;
  allowFaults?: boolean;
  metrics?: string;
  logLevel: string;
}

const LISTEN = formatAddress('127.0.0.1', DEFAULT_WORKER_PORT);

const EXAMPLES = `
Examples:
  $ kofn worker                                       on ${LISTEN}, shards under ~/.local/share/kofn/worker
  $ kofn worker --listen 0.0.0.0 --threads 4          for masters on other machines (there is no TLS yet)
  $ kofn worker --listen 127.0.0.1:0 --json           any free port; the first line says which, as JSON
  $ kofn worker --max-memory 512MB --max-disk 2GiB    on a small board
  $ kofn worker --metrics 127.0.0.1:9464              GET /metrics there, for Prometheus

The first line of standard output is the address. SIGTERM ends it when what runs is done.`;

/** The subcommand `worker`, complete with its action and its exit codes. */
export function workerCommand(): Command {
  return new Command('worker')
    .description('hold shards and run them for masters')
    .option(
      '--listen <host:port>',
      `address to listen on; without a port ${DEFAULT_WORKER_PORT}, port 0 takes a free one`,
      LISTEN,
    )
    .option('--data-dir <dir>', 'where shards are kept (default: kofn/worker in the XDG data directory)')
    .option('--engine <name>', 'native, wasm, or auto: native where it loads', 'auto')
    .option('--threads <n>', 'threads of one run (default: the cores)')
    .option('--max-memory <size>', 'what loaded shards may take (default: three quarters of the memory)')
    .option('--max-disk <size>', 'what stored shards may take (default: what is free at start)')
    .option('--max-message <size>', 'largest message taken or sent (default: 256MiB)')
    .option('--max-queue <n>', 'requests that may wait (default: 64)')
    .option('--metrics <host:port>', 'where GET /metrics answers Prometheus (default: nowhere)')
    .option('--log-level <level>', `what is logged on stderr: ${LOG_LEVELS.join(', ')}`, 'info')
    .option('--json', 'first line as a JSON object: address, pid, dataDir, engine, version')
    .option('--exit-with-parent', 'end at once when standard input ends')
    .option('--allow-faults', 'let whoever reaches it slow, stop and kill it: for benchmarks of failures only')
    .addHelpText('after', EXAMPLES)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'kofn worker: ')) })
    .exitOverride(error => process.exit(error.exitCode === 0 ? 0 : 2))
    .action(serve);
}

/** The program `kofn-worker`. */
export async function runWorkerCommand(argv: readonly string[]): Promise<void> {
  await workerCommand().name('kofn-worker').version(VERSION).parseAsync(argv);
}

async function serve(flags: Flags): Promise<void> {
  // A reader of our output that is gone is no reason to end.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  if (flags.exitWithParent) exitWithParent();
  try {
    const logger = createLogger('kofn worker', flags.logLevel);
    const options = {
      listen: flags.listen,
      dataDir: flags.dataDir,
      engine: flags.engine as EngineName | 'auto', // startWorker checks it
      threads: optional('--threads', flags.threads, parseWhole),
      maxMemoryBytes: optional('--max-memory', flags.maxMemory, parseSize),
      maxDiskBytes: optional('--max-disk', flags.maxDisk, parseSize),
      maxMessageBytes: optional('--max-message', flags.maxMessage, parseSize),
      maxQueue: optional('--max-queue', flags.maxQueue, parseWhole),
      allowFaults: flags.allowFaults,
      metrics: flags.metrics,
    };
    const worker = await startWorker(options, { logger });
    drainWhenAsked(worker, systemClock, logger);
    announce(worker, flags.json === true);
    logStart(worker, logger);
  } catch (error) {
    const { message } = KofnError.from(error);
    console.error(`kofn worker: ${message.replaceAll('\n', ' ')}`);
    process.exit(isKofnError(error, 'INVALID_ARGUMENT') ? 2 : 1);
  }
}

function announce(worker: RunningWorker, json: boolean): void {
  const { address, dataDir, engine, version, allowsFaults, metricsAddress: metrics } = worker;
  const { pid } = process;
  const also = { ...(metrics !== undefined && { metrics }), ...(allowsFaults && { allowFaults: true }) };
  const scraped = metrics === undefined ? '' : `, metrics on http://${metrics}/metrics`;
  const line = json
    ? JSON.stringify({ address, pid, dataDir, engine, version, ...also })
    : `kofn worker listening on ${address} (pid ${pid}, engine ${engine}, shards in ${dataDir}${scraped})`;
  process.stdout.write(`${line}\n`);
}

function logStart(worker: RunningWorker, logger: Logger): void {
  const { address, host, dataDir, engine, version, allowsFaults, metricsAddress: metrics, server } = worker;
  logger.info({ address, metrics, dataDir, engine, version, shards: server.store.list().length }, 'listening');
  if (allowsFaults) {
    logger.warn(
      `--allow-faults: whoever reaches ${address} can slow, stop and kill this worker, and make it lose and damage its replies; ` +
        'use it for benchmarks only',
    );
  }
  if (isLoopback(host)) return;
  logger.warn(`${address} is open to the network and there is no TLS yet; use a private network`);
}

function drainWhenAsked(worker: RunningWorker, clock: Clock, logger: Logger): void {
  const drain = async ({ reason }: StopRequest) => {
    const since = clock.now();
    logger.info(`${reason}: finishing what runs; one more signal ends it at once`);
    try {
      await worker.close();
      logger.info(`finished after ${Math.round(clock.now() - since)} ms`);
      process.exit(0);
    } catch (error) {
      logger.error(KofnError.from(error).message);
      process.exit(1);
    }
  };
  new StopRequests(request => void drain(request), endNow, clock);
}

/** A parent that dies, however it dies, closes our standard input. */
function exitWithParent(): void {
  process.stdin.on('end', endNow);
  process.stdin.on('error', endNow);
  process.stdin.resume();
}

function optional<T>(option: string, text: string | undefined, parse: (option: string, text: string) => T) {
  return text === undefined ? undefined : parse(option, text);
}
