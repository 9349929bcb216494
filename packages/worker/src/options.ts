/** A worker's options, checked once. */
import os from 'node:os';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import { ENGINE_NAMES, type EngineName } from '@kofn/engine';
import { DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_WORKER_PORT, parseListen, type ListenAddress } from '@kofn/wire';

export interface WorkerOptions {
  /** HOST:PORT; port 0 takes a free one. Default 127.0.0.1:7453, each part by itself. */
  readonly listen?: string | undefined;
  /** Where shards are kept. Default `$XDG_DATA_HOME/kofn/worker`, or `~/.local/share/kofn/worker`. */
  readonly dataDir?: string | undefined;
  /** Default 'auto': native where it loads, else wasm. */
  readonly engine?: EngineName | 'auto' | undefined;
  /** Threads of one run. Default: the machine's cores. */
  readonly threads?: number | undefined;
  /** What open sessions may take. Default: three quarters of the memory. */
  readonly maxMemoryBytes?: number | undefined;
  /** What shards may take on disk. Default: what is free there at start, and what they take already. */
  readonly maxDiskBytes?: number | undefined;
  /** Default 256 MB. */
  readonly maxMessageBytes?: number | undefined;
  /** Requests that may wait for the engine. Default 64. */
  readonly maxQueue?: number | undefined;
  /**
   * Whether whoever reaches the worker may bring faults upon it (kofn.v1.FaultControl), ending this process among them: for benchmarks of
   * failures. Default false.
   */
  readonly allowFaults?: boolean | undefined;
  /** HOST:PORT where `GET /metrics` answers Prometheus; port 0 takes a free one. Default: nowhere. */
  readonly metrics?: string | undefined;
}

export interface ResolvedWorkerOptions extends ListenAddress {
  readonly dataDir: string;
  readonly engine: EngineName | 'auto';
  readonly threads: number;
  readonly maxMemoryBytes: number;
  /** Undefined: what the disk has. */
  readonly maxDiskBytes: number | undefined;
  readonly maxMessageBytes: number;
  readonly maxQueue: number;
  readonly allowFaults: boolean;
  readonly metrics: ListenAddress | undefined;
  readonly cores: number;
}

const MB = 1e6;

/** Throws INVALID_ARGUMENT. */
export function resolveOptions(options: WorkerOptions, env: NodeJS.ProcessEnv = process.env): ResolvedWorkerOptions {
  const cores = os.availableParallelism();
  const { engine = 'auto', maxDiskBytes, metrics } = options;
  if (engine !== 'auto' && !ENGINE_NAMES.includes(engine)) {
    throw new KofnError('INVALID_ARGUMENT', `--engine ${String(engine)}: must be auto, ${ENGINE_NAMES.join(' or ')}`);
  }
  const dataDir = options.dataDir ?? defaultDataDir(env);
  if (dataDir === '') throw new KofnError('INVALID_ARGUMENT', '--data-dir "": must be the path of a directory');
  const memoryBytes = process.constrainedMemory() || os.totalmem();
  return {
    ...parseListen('--listen', options.listen ?? `:${DEFAULT_WORKER_PORT}`, DEFAULT_WORKER_PORT),
    dataDir: path.resolve(dataDir),
    engine,
    threads: inRange('--threads', options.threads ?? cores, 1, 1024),
    maxMemoryBytes: inRange(
      '--max-memory',
      options.maxMemoryBytes ?? Math.floor(0.75 * Math.min(memoryBytes, os.totalmem())),
      MB,
      Number.MAX_SAFE_INTEGER,
    ),
    maxDiskBytes: maxDiskBytes === undefined ? undefined : inRange('--max-disk', maxDiskBytes, 0, 2 ** 53 - 1),
    // A frame's length is an unsigned 32-bit number, and a Buffer holds no more than 4 GiB.
    maxMessageBytes: inRange('--max-message', options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES, 1024, 2 ** 32 - 1),
    maxQueue: inRange('--max-queue', options.maxQueue ?? 64, 1, 65536),
    allowFaults: options.allowFaults ?? false,
    metrics: metrics === undefined ? undefined : parseListen('--metrics', metrics),
    cores,
  };
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes of "512MB", "1.5GiB" or "1048576". Throws INVALID_ARGUMENT naming `option`. */
export function parseSize(option: string, text: string): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  const factor = number === '' ? undefined : UNITS[unit.toLowerCase()];
  if (factor === undefined) {
    throw new KofnError('INVALID_ARGUMENT', `${option} ${text}: must be a size such as 512MB, 1GiB or 1048576`);
  }
  return Math.floor(Number(number) * factor);
}

/** A whole number. Throws INVALID_ARGUMENT naming `option`. */
export function parseWhole(option: string, text: string): number {
  if (!/^\d+$/.test(text)) throw new KofnError('INVALID_ARGUMENT', `${option} ${text}: must be a whole number`);
  return Number(text);
}

function inRange(option: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new KofnError('INVALID_ARGUMENT', `${option} ${value}: must be a whole number from ${least} to ${most}`);
}

function defaultDataDir(env: NodeJS.ProcessEnv): string {
  // As the XDG base directory specification has it, a relative path is ignored.
  const base = env['XDG_DATA_HOME'] ?? '';
  return path.join(path.isAbsolute(base) ? base : path.join(os.homedir(), '.local', 'share'), 'kofn', 'worker');
}
