/** One suite over every engine: how it starts, closes, gives memory back, and lets its process end. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { isKofnError } from '@kofn/core';
import { createEngine, ENGINE_NAMES, type Engine } from '@kofn/engine';
import { after, before, describe, it } from 'mocha';
import { fails, gemm, normal } from '../support/engines.js';
import { makeModel, writeModel, type ModelSpec } from '../support/onnx-models.js';

for (const name of ENGINE_NAMES) {
  describe(`life of engines: ${name}`, () => {
    let engine: Engine;
    const folders: string[] = [];
    const write = (spec: ModelSpec) => {
      const folder = writeModel(makeModel(spec));
      folders.push(folder);
      return folder;
    };
    before(async () => {
      engine = await createEngine(name);
    });
    after(async () => {
      await engine[Symbol.asyncDispose]();
      for (const folder of folders) rmSync(folder, { recursive: true });
    });

    it('ends what is pending with CANCELLED when session or engine closes', async () => {
      const folder = write(gemm(normal([500, 500]), normal([500])));
      const own = await createEngine(name);
      const session = await own.open(folder);
      const first = await own.open(folder);
      const x = normal([200, 500]);
      const pending = fails(first.run({ x }), 'CANCELLED', /session is closed/);
      await first[Symbol.asyncDispose]();
      await pending;
      await fails(first.run({ x }), 'CANCELLED', /session is closed/);
      const running = fails(session.run({ x }), 'CANCELLED', /engine is closed/);
      await own[Symbol.asyncDispose]();
      await running;
      await fails(session.run({ x }), 'CANCELLED', /engine is closed/);
      await fails(own.open(folder), 'CANCELLED', /engine is closed/);
      await session[Symbol.asyncDispose]();
    });

    it('gives memory back: of 200 sessions, and of 5000 runs', async () => {
      const folder = write({ ...gemm(normal([500, 500]), normal([500])), external: true });
      const x = normal([10, 500]);
      const grownMB = async (times: number, work: () => Promise<unknown>) => {
        for (let i = 0; i < times / 10; i++) await work();
        const before = process.memoryUsage.rss();
        for (let i = 0; i < times; i++) await work();
        return (process.memoryUsage.rss() - before) / 1e6;
      };
      const ofSessions = await grownMB(200, async () => {
        await using session = await engine.open(folder);
        await session.run({ x });
      });
      assert.ok(ofSessions < 120, `200 sessions with 1 MB of weights left ${ofSessions.toFixed(0)} MB behind`);
      await using session = await engine.open(folder);
      const ofRuns = await grownMB(5000, () => session.run({ x }));
      assert.ok(ofRuns < 120, `5000 runs with 40 KB of tensors left ${ofRuns.toFixed(0)} MB behind`);
    });

    it('does not keep a process alive when idle, nor let one end with a call under way', async () => {
      const folder = write(gemm(normal([5, 7]), normal([5])));
      const { printed, code } = await inProcess(
        name,
        folder,
        `session.run({ x: zeros(1, 7) }).then(() => console.log('ran'));`,
      );
      assert.equal(printed, 'ran\n');
      assert.equal(code, 0);
    });

    it('lets a process exit in the middle of a run', async () => {
      const folder = write(gemm(normal([600, 600]), normal([600])));
      for (const delayTurns of [0, 100, 1000]) {
        const { code, signal } = await inProcess(
          name,
          folder,
          `for (let i = 0; i < 5; i++) session.run({ x: zeros(300, 600) }).catch(() => undefined);
           for (let i = 0; i < ${delayTurns}; i++) await new Promise(setImmediate);
           process.exit(7);`,
        );
        assert.deepEqual({ code, signal }, { code: 7, signal: null });
      }
    });

    for (const what of ['session', 'engine'] as const) {
      it(`closes the ${what} in the middle of runs, time and again, and starts none of those that wait`, async () => {
        const folder = write(gemm(normal([1200, 1200]), normal([1200])));
        const x = normal([60, 1200]);
        for (let round = 0; round < 3; round++) {
          await using own = await createEngine(name);
          const session = await own.open(folder);
          await session.run({ x });
          const start = performance.now();
          for (let i = 0; i < 3; i++) await session.run({ x });
          const runMs = (performance.now() - start) / 3;
          const first = session.run({ x });
          const results = Promise.allSettled(Array.from({ length: 100 }, () => session.run({ x })));
          await first;
          const closing = performance.now();
          await (what === 'session' ? session : own)[Symbol.asyncDispose]();
          const closeMs = performance.now() - closing;
          const cancelled = (await results).filter(
            result => result.status === 'rejected' && isKofnError(result.reason, 'CANCELLED'),
          );
          assert.ok(cancelled.length > 50, `${cancelled.length} of 100 waiting runs were cancelled`);
          assert.ok(closeMs < 30 * runMs, `closing took ${closeMs} ms, a run takes ${runMs}`);
        }
      });
    }
  });
}

describe('createEngine', () => {
  it('refuses an engine that does not exist, by name', async () => {
    await fails(createEngine('gpu' as 'wasm'), 'INVALID_ARGUMENT', /engine: "gpu" is not one of auto, native, wasm/);
  });

  it('is native where that loads', async () => {
    await using engine = await createEngine();
    assert.equal(engine.name, 'native');
  });

  it('is wasm where there is no native build, and says so to who asks for it', async () => {
    // The packages as installed, onnxruntime-node left out.
    const modules = mkdtempSync(path.join(tmpdir(), 'kofn-test-modules-'));
    try {
      const root = fileURLToPath(new URL('../../../', import.meta.url));
      for (const one of ['core', 'engine']) {
        for (const part of ['package.json', 'dist/src']) {
          const there = path.join('@kofn', one, part);
          cpSync(path.join(root, 'packages', one, part), path.join(modules, 'node_modules', there), {
            recursive: true,
          });
        }
      }
      const web = path.join('node_modules', 'onnxruntime-web');
      symlinkSync(path.join(root, web), path.join(modules, web));
      const script = `
        import { createEngine } from '@kofn/engine';
        const { name } = await createEngine('auto');
        const error = await createEngine('native').catch(error => error);
        console.log(JSON.stringify({ name, code: error.code, message: error.message }));
      `;
      const args = ['--input-type=module', '--eval', script];
      const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: modules });
      const { name, code, message } = JSON.parse(stdout) as Record<'name' | 'code' | 'message', string>;
      assert.deepEqual({ name, code }, { name: 'wasm', code: 'ENGINE' });
      assert.match(message, /the native engine does not start here: .*onnxruntime-node/);
    } finally {
      rmSync(modules, { recursive: true });
    }
  });
});

/** Runs `code` in a process of its own, after opening `session` from `folder`. */
async function inProcess(
  name: string,
  folder: string,
  code: string,
): Promise<{ printed: string; code: number | null; signal: string | null }> {
  const script = `
    import { createEngine } from '@kofn/engine';
    const engine = await createEngine('${name}');
    const session = await engine.open(${JSON.stringify(folder)});
    const zeros = (...shape) => ({ dtype: 'float32', shape, data: new Float32Array(shape[0] * shape[1]) });
    ${code}
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: new URL('../..', import.meta.url),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, string | null];
  return { printed, code: exitCode, signal };
}
