/** The documents name everything that a program can meet. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
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
    const source = readFileSync(new URL('../../packages/master/src/fleet/worker-state.ts', import.meta.url), 'utf8');
    const states = [...source.matchAll(/readonly kind: '(\w+)'/g)].map(([, state]) => state!);
    assert.equal(states.length, 8);
    assert.deepEqual(
      states.filter(state => !text.includes(`| \`${state}\``)),
      [],
    );
  });
});

describe('docs/benchmarks.md', () => {
  const text = readFileSync(new URL('../../docs/benchmarks.md', import.meta.url), 'utf8');

  it('has every field of a config', () => {
    const command = fileURLToPath(new URL('../../packages/cli/bin/kofn.js', import.meta.url));
    const schema = JSON.parse(execFileSync(process.execPath, [command, 'bench', 'schema', 'config'], { encoding: 'utf8' })) as unknown; // prettier-ignore
    const all = fieldsOf(schema, '');
    assert.deepEqual(
      all.filter(({ about }) => about === undefined).map(({ field }) => field),
      [],
      'fields that say nothing of themselves',
    );
    const fields = all.map(({ field }) => field);
    assert.ok(fields.length > 50);
    assert.deepEqual(
      fields.filter(field => !text.includes(`\`${field}\``)),
      [],
    );
  });
});

/** Paths as the table has them: those of cells are those of defaults. */
function fieldsOf(schema: unknown, path: string): { field: string; about: string | undefined }[] {
  const {
    properties = {},
    items,
    additionalProperties,
    anyOf = [],
  } = schema as {
    properties?: Record<string, unknown>;
    items?: unknown;
    additionalProperties?: unknown;
    anyOf?: unknown[];
  };
  if (path === 'cells') return [];
  const own = Object.entries(properties).flatMap(([name, value]) => {
    const field = path === '' ? name : `${path}.${name}`;
    return [{ field, about: (value as { description?: string }).description }, ...fieldsOf(value, field)];
  });
  const ofItems = typeof items === 'object' ? fieldsOf(items, `${path}[]`) : [];
  const byName = typeof additionalProperties === 'object' ? fieldsOf(additionalProperties, `${path}.*`) : [];
  return [...own, ...ofItems, ...byName, ...anyOf.flatMap(way => fieldsOf(way, path))];
}
