/** What the caller sees of a thread that dies: the scripts here are threads that do. The suite over both engines is
 * test/compliance/engines.test.ts. */
import assert from 'node:assert/strict';
import { isKofnError, type ErrorCode } from '@kofn/core';
import { describe, it } from 'mocha';
import { startThread } from '../src/thread-engine.js';

const READY = `
  import { parentPort } from 'node:worker_threads';
  parentPort.postMessage({ kind: 'ready', version: '1' });
`;
const OPENS = `
  const inputs = [{ name: 'x', dtype: 'float32', shape: [1] }];
  parentPort.on('message', ({ kind, id }) => {
    if (kind !== 'open') return die();
    parentPort.postMessage({ kind: 'done', id, value: { session: 1, inputs, outputs: inputs } });
  });
`;
const x = { dtype: 'float32', shape: [1], data: Float32Array.of(1) } as const;

describe('an engine whose thread dies', () => {
  for (const [how, die, reason] of [
    ['throws', `function die() { throw new Error('boom'); }`, /the native engine died \(boom\); open a new engine/],
    ['exits', `function die() { process.exit(3); }`, /died \(exit code 3\); open a new engine/],
    [
      'runs out of memory',
      `function die() { const all = []; for (;;) all.push(new Array(1e5).fill(all.length + 0.5)); }`,
      /died \(.*memory.*\); open a new engine/,
    ],
  ] as const) {
    it(`rejects what is pending and what comes later when it ${how}`, async () => {
      const engine = await startThread('native', script(READY + OPENS + die), { maxOldGenerationSizeMb: 16 });
      const session = await engine.open('anywhere');
      await Promise.all([
        fails(session.run({ x }), 'ENGINE', reason),
        fails(session.run({ x }), 'ENGINE', reason),
        fails(engine.open('elsewhere'), 'ENGINE', reason),
      ]);
      await fails(session.run({ x }), 'ENGINE', reason);
      await fails(engine.open('anywhere'), 'ENGINE', reason);
      await session[Symbol.asyncDispose]();
      await engine[Symbol.asyncDispose]();
    });
  }

  it('says why it does not start', async () => {
    const start = (text: string) => startThread('wasm', script(text));
    await fails(start(`throw new Error('boom')`), 'ENGINE', /the wasm engine does not start here: boom/);
    await fails(start(`process.exit(3)`), 'ENGINE', /does not start here: its thread ended with 3/);
    const refused = `parentPort.postMessage({ kind: 'failed', code: 'ENGINE', message: 'no build for riscv' })`;
    await fails(
      start(READY.replace(/parentPort\.post.*/, refused)),
      'ENGINE',
      /does not start here: no build for riscv/,
    );
  });

  it('closes twice', async () => {
    const closing = `parentPort.on('message', () => process.exit(0));`;
    const engine = await startThread('native', script(READY + closing));
    await engine[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
    await fails(engine.open('anywhere'), 'CANCELLED', /engine is closed/);
  });
});

function script(text: string): URL {
  return new URL(`data:text/javascript,${encodeURIComponent(text)}`);
}

async function fails(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, error => {
    assert.ok(isKofnError(error, code), `expected ${code}, got ${String(error)}`);
    assert.match(error.message, message);
    return true;
  });
}
