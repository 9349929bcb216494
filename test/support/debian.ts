/** Tests that take a tool of Debian's. Where it is not installed they are pending, and name the package in their titles. */
import type { Context, Runnable } from 'mocha';

/** Skips the test of `context`, or all tests of the suite whose hook it is, unless each of `packages` is there. */
export function needDebian(context: Context, packages: Readonly<Record<string, boolean>>): void {
  const lacking = Object.entries(packages).flatMap(([name, isThere]) => (isThere ? [] : [name]));
  if (lacking.length === 0) return;
  const test = context.test as Runnable & { readonly type: 'test' | 'hook' };
  const skipped: readonly Runnable[] = test.type === 'hook' ? test.parent!.tests : [test];
  for (const each of skipped) each.title += ` (needs Debian's ${lacking.join(', ')}: npm run setup:debian)`;
  context.skip();
}
