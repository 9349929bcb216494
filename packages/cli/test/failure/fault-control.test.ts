import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'mocha';
import { listenGrpc, METHODS } from '@kofn/wire';
import { startWorker } from '@kofn/worker';
import { FaultControl } from '../../src/failure/fleet/fault-control.js';

async function start(allowFaults: boolean) {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'kofn-fault-control-'));
  const worker = await startWorker({ listen: '127.0.0.1:0', dataDir, engine: 'wasm', allowFaults });
  return {
    address: worker.address,
    async [Symbol.asyncDispose]() {
      await worker.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

describe('FaultControl', () => {
  it('sets, arms and asks a worker that allows it', async () => {
    await using worker = await start(true);
    await using control = await FaultControl.connect(worker.address);
    assert.equal(control.address, worker.address);
    await control.set({ slowFactor: 2 });
    await control.act({ kind: 'killOnNext' });
    const { settings, armed, received } = await control.status();
    assert.deepEqual([settings.slowFactor, armed, received], [2, { kind: 'killOnNext' }, 0]);
    await assert.rejects(control.set({ dropRate: -1 }), { code: 'INVALID_ARGUMENT', message: /^drop_rate -1/ });
  });

  it('connects to no other', async () => {
    await using worker = await start(false);
    await assert.rejects(FaultControl.connect(worker.address), {
      code: 'PERMISSION_DENIED',
      message: /--allow-faults/,
    });
    await assert.rejects(FaultControl.connect('127.0.0.1:1'), { code: 'UNAVAILABLE' });
  });

  it('waits for no answer longer than its deadline', async () => {
    const silent = () => new Promise<Uint8Array>(() => undefined);
    const handlers = { unary: new Map([[METHODS.faultStatus, silent]]), clientStream: new Map(), duplex: new Map() };
    const server = await listenGrpc(handlers, { host: '127.0.0.1', port: 0 });
    try {
      const connected = FaultControl.connect(server.address, { deadlineMs: 20 });
      await assert.rejects(connected, { code: 'DEADLINE_EXCEEDED' });
    } finally {
      await server.close(0);
    }
  });
});
