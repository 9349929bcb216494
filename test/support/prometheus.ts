/** A real Prometheus (Debian's package) on a free port, that scrapes five times a second, with the alerts that kofn comes with. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { sleep, systemClock } from '@kofn/core';

const UNTIL_MS = 30_000;
const EVERY_MS = 50;

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Whether `prometheus` and `promtool` are here, of the package prometheus. */
export function hasPrometheus(): boolean {
  return ['prometheus', 'promtool'].every(tool => spawnSync(tool, ['--version']).status === 0);
}

export class Prometheus implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #folder: string;
  readonly #url: string;
  #said = '';

  private constructor(folder: string, port: number) {
    this.#folder = folder;
    this.#url = `http://127.0.0.1:${port}`;
    this.#process = spawn('prometheus', [
      `--config.file=${path.join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${path.join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=warn',
    ]);
    this.#process.stderr!.setEncoding('utf8').on('data', (text: string) => (this.#said += text));
    this.#closed = once(this.#process, 'close');
  }

  /** Of each job its targets. Returns when it is ready. */
  static async start(jobs: Readonly<Record<string, readonly string[]>>, rules: string): Promise<Prometheus> {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-prometheus-'));
    const config = {
      global: { scrape_interval: '200ms', scrape_timeout: '200ms', evaluation_interval: '200ms' },
      rule_files: [rules],
      scrape_configs: Object.entries(jobs).map(([name, targets]) => ({
        job_name: name,
        static_configs: [{ targets }],
      })),
    };
    writeFileSync(path.join(folder, 'prometheus.yml'), JSON.stringify(config)); // JSON is YAML
    const prometheus = new Prometheus(folder, await freePort());
    try {
      await prometheus.#until(async () => {
        const response = await fetch(`${prometheus.#url}/-/ready`).catch(() => undefined);
        return response?.ok === true;
      }, 'ready');
      return prometheus;
    } catch (error) {
      await prometheus[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Of the HTTP API, `/api/v1/…`. Throws what it says is wrong. */
  async get<T>(endpoint: string, query: Readonly<Record<string, string>> = {}): Promise<T> {
    const response = await fetch(`${this.#url}/api/v1/${endpoint}?${new URLSearchParams(query).toString()}`);
    const { status, data, error } = (await response.json()) as { status: string; data: T; error?: string };
    assert.equal(status, 'success', `${JSON.stringify(query)}: ${error}`);
    return data;
  }

  /** What `expression` is now. */
  async query(expression: string): Promise<Sample[]> {
    const { result } = await this.get<{ result: { metric: Record<string, string>; value: [number, string] }[] }>(
      'query',
      { query: expression },
    );
    return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** Resolves when the one value of `expression` is `expected`, but for rounding. A scrape that a busy machine missed leaves none for a moment. */
  async untilIs(expression: string, expected: number): Promise<void> {
    let last: readonly Sample[] = [];
    const is = async () => {
      last = await this.query(expression);
      return last.length === 1 && Math.abs(last[0]!.value - expected) <= 1e-9 * Math.abs(expected);
    };
    await this.#until(is, () => `${expression} ${expected}; it is ${JSON.stringify(last)}`);
  }

  /** Resolves when `expression` has a value. */
  async untilSome(expression: string): Promise<void> {
    await this.#until(async () => (await this.query(expression)).length > 0, `there: ${expression}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#closed;
    rmSync(this.#folder, { recursive: true });
  }

  async #until(isIt: () => Promise<boolean>, what: string | (() => string)): Promise<void> {
    const start = systemClock.now();
    while (!(await isIt())) {
      const isOver = this.#process.exitCode !== null || systemClock.now() - start > UNTIL_MS;
      assert.ok(!isOver, `not ${typeof what === 'string' ? what : what()}. ${this.#said}`);
      await sleep(systemClock, EVERY_MS);
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
