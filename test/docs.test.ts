/** The documents name everything that a program can meet. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { ERROR_CODES } from 'kofn';
import { describe, it } from 'mocha';

describe('docs/operations.md', () => {
  const text = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');

  it('has every error code', () => {
    assert.deepEqual(
      ERROR_CODES.filter(code => !text.includes(`\`${code}\``)),
      [],
    );
  });

  it('has every state of a worker', () => {
    const source = readFileSync(new URL('../../packages/master/src/fleet.ts', import.meta.url), 'utf8');
    const states = [...source.matchAll(/readonly kind: '(\w+)'/g)].map(([, state]) => state!);
    assert.equal(states.length, 6);
    assert.deepEqual(
      states.filter(state => !text.includes(`| \`${state}\``)),
      [],
    );
  });
});
