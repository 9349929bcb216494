import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { createGate, enter, guardExit, leave, shut } from '../src/gate.js';

describe('a gate', () => {
  it('lets in until it is shut, and out always', () => {
    const gate = createGate();
    assert.equal(enter(gate), true);
    shut(gate);
    leave(gate);
    assert.equal(enter(gate), false);
    assert.equal(enter(gate), false);
  });

  it('listens for the exit of the process once for all, and only while somebody is guarded', () => {
    const before = process.listenerCount('exit');
    const ends = Array.from({ length: 20 }, () => guardExit(createGate()));
    assert.equal(process.listenerCount('exit'), before + 1);
    for (const end of ends) end();
    assert.equal(process.listenerCount('exit'), before);
  });
});
