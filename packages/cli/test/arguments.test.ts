import assert from 'node:assert/strict';
import { isKofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import {
  decimal,
  hedge,
  inputFile,
  kill,
  layerChoice,
  names,
  numbers,
  oneOf,
  whole,
} from '../src/options/arguments.js';
import { checkKills } from '../src/workers/kill-plan.js';
import { workerCount } from '../src/workers/session.js';

function refuses(work: () => unknown, message: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(isKofnError(error, 'INVALID_ARGUMENT'), String(error));
    assert.match(error.message, message);
    return true;
  });
}

describe('arguments', () => {
  it('parses what is right', () => {
    assert.equal(whole('--n', 1, 9)('9'), 9);
    assert.equal(decimal('--x', 0, 1)('0.25'), 0.25);
    assert.equal(oneOf('--e', ['a', 'b'])('b'), 'b');
    assert.deepEqual(numbers('--mean')('0.5,-1,2e-3'), [0.5, -1, 0.002]);
    assert.deepEqual(names('--workers')('a:1, b:2'), ['a:1', 'b:2']);
    assert.equal(layerChoice('auto'), 'auto');
    assert.deepEqual(layerChoice('conv1,fc'), ['conv1', 'fc']);
    assert.deepEqual(inputFile('b=y=z', [{ name: 'a', file: 'x' }]), [
      { name: 'a', file: 'x' },
      { name: 'b', file: 'y=z' },
    ]);
    assert.deepEqual(kill('2@10'), [{ worker: 2, request: 10 }]);
    assert.deepEqual(['p95', '0', '12.5'].map(hedge), ['p95', 0, 12.5]);
  });

  it('names option, value and range of what is wrong', () => {
    for (const text of ['0', '10', '1.5', '-1', '', 'x', '1e1']) {
      refuses(() => whole('--n', 1, 9)(text), /^--n .*from 1 to 9$/);
    }
    for (const text of ['2', '', 'NaN', 'x']) refuses(() => decimal('--x', 0, 1)(text), /^--x .*from 0 to 1$/);
    refuses(() => oneOf('--e', ['a', 'b'])('c'), /--e c: give one of a, b/);
    for (const text of ['p99', '', '-1', '5ms', '1e10'])
      refuses(() => hedge(text), /--hedge .*give p95, or ms: a number from 0/);
    refuses(() => numbers('--mean')('1,,2'), /--mean 1,,2/);
    refuses(() => names('--workers')('a:1,'), /--workers/);
    for (const text of ['x', '=x', 'x=']) refuses(() => inputFile(text), /--input .*NAME=FILE/);
    refuses(() => inputFile('a=y', [{ name: 'a', file: 'x' }]), /"a" is given twice/);
    for (const text of ['2', '@1', '2@', '-1@2', 'a@b', '1@2@3']) refuses(() => kill(text), /--kill .*WORKER@REQUEST/);
    refuses(() => kill('2@3', [{ worker: 2, request: 1 }]), /worker 2 is killed twice/);
  });

  it('refuses kills that cannot happen', () => {
    checkKills([{ worker: 4, request: 0 }], 5, 1);
    refuses(() => checkKills([{ worker: 5, request: 0 }], 5, 1), /--kill 5@0: there is no worker 5.*0 to 4/);
    refuses(() => checkKills([{ worker: 0, request: 1 }], 5, 1), /--kill 0@1: there is no request 1.*only request 0/);
    refuses(() => checkKills([{ worker: 0, request: 0 }], undefined, 1), /only local workers/);
  });

  it('takes workers one way only', () => {
    const rest = { engine: 'auto', threads: 1 } as const;
    assert.equal(workerCount({ ...rest, local: 5 }), 5);
    assert.equal(workerCount({ ...rest, workers: ['a:1', 'b:1'] }), 2);
    assert.equal(workerCount(rest), undefined);
    refuses(() => workerCount({ ...rest, local: 5, workers: ['a:1'] }), /not both/);
  });
});
