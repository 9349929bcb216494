// What CI runs: `npm test`, then lint, formatting and the long forms of tests. Options are mocha's (`npm run verify -- --forbid-pending`).
// The last line, `N passed, N failed[, N skipped]` over all of it, is what CI reads. Exit code 1 when anything failed.
import { readdirSync } from 'node:fs';
import { bin, runAll, suites, summary } from './lanes.mjs';

const options = process.argv.slice(2);
const sources = readdirSync(new URL('../packages', import.meta.url)).map(name => `packages/${name}/src`);
const first = await runAll(suites({ options }));
const second = await runAll([
  ...suites({ isLong: true, options }),
  { name: 'eslint', command: [bin('eslint'), '.'] },
  { name: 'prettier', command: [bin('prettier'), '--check', '.'] },
  {
    name: 'imports',
    command: [bin('dependency-cruiser'), '--config', '.dependency-cruiser.mjs', ...sources],
  },
]);
const outcome = {
  isGood: first.isGood && second.isGood,
  counts: [...first.counts, ...second.counts],
  failures: [...first.failures, ...second.failures],
};
console.log(summary(outcome));
process.exitCode = outcome.isGood ? 0 : 1;
