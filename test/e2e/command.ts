/** Drives the command as a user does: a process of its own, with a temporary directory of its own to find what it leaves. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { sleep, systemClock } from '@kofn/core';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const MODEL = path.join(ROOT, 'models', 'fashion-cnn.onnx');
export const BIN = path.join(ROOT, 'packages', 'cli', 'bin', 'kofn.js');
const END_WAIT_MS = 10_000;

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Sandbox implements Disposable {
  /** TMPDIR of every command run here; its processes are known by it. */
  readonly folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'kofn-e2e-')));

  /** A path outside TMPDIR that goes with the sandbox. */
  readonly files = realpathSync(mkdtempSync(path.join(tmpdir(), 'kofn-e2e-files-')));

  start(args: readonly string[], script = BIN): ChildProcessByStdio<null, Readable, Readable> {
    return spawn(process.execPath, [script, ...args], {
      cwd: ROOT,
      // CI makes some libraries colour even a pipe.
      env: { ...process.env, TMPDIR: this.folder, CI: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  async run(...args: string[]): Promise<Ended> {
    return ended(this.start(args));
  }

  /** Pids of living processes that were started here, at whatever remove. */
  processes(): number[] {
    if (process.platform !== 'linux') {
      const lines = execFileSync('ps', ['-A', '-o', 'pid=,args='], { encoding: 'utf8' }).split('\n');
      return lines.filter(line => line.includes(this.folder)).map(line => Number.parseInt(line, 10));
    }
    return readdirSync('/proc')
      .filter(name => /^\d+$/.test(name))
      .map(Number)
      .filter(pid => pid !== process.pid && environmentOf(pid).includes(`TMPDIR=${this.folder}\0`));
  }

  /** Waits until no process is left, and fails when some stay. */
  async untilNoProcess(): Promise<void> {
    const start = systemClock.now();
    while (this.processes().length > 0) {
      if (systemClock.now() - start > END_WAIT_MS) assert.deepEqual(this.processes(), [], 'processes left behind');
      await sleep(systemClock, 20);
    }
  }

  assertNothingLeft(): void {
    assert.deepEqual(this.processes(), [], 'processes left behind');
    assert.deepEqual(readdirSync(this.folder), [], 'temporary files left behind');
  }

  [Symbol.dispose](): void {
    for (const pid of this.processes()) process.kill(pid, 'SIGKILL');
    for (const folder of [this.folder, this.files]) if (existsSync(folder)) rmSync(folder, { recursive: true });
  }
}

export async function ended(child: ChildProcessByStdio<null, Readable, Readable>): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

/** The one JSON object on stdout. */
export function json<T>({ stdout, stderr }: Ended): T {
  try {
    return JSON.parse(stdout) as T;
  } catch {
    throw new Error(`no JSON object on stdout: ${stdout}\nstderr: ${stderr}`);
  }
}

function environmentOf(pid: number): string {
  try {
    return `${readFileSync(`/proc/${pid}/environ`, 'latin1')}\0`;
  } catch {
    return ''; // it has ended
  }
}
