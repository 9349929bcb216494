// Runs the tests, two suites at a time, for the machines that it is for have two cores. Each suite is a process of mocha's; what it says
// is shown when it has ended, and what failed once more at the end. Exit code 1 when anything did. Options are mocha's.
//   npm test                 every suite, long tests in their short form (test/support/form.ts)
//   npm run test:quick       what only computes
//   npm run test:long        the long forms
//   npm test -- --grep word  tests with that word in their title
import { runAll, summary, suites } from './lanes.mjs';

const { quick, long, options } = argumentsOf(process.argv.slice(2));
const outcome = await runAll(suites({ isQuick: quick, isLong: long, options }));
console.log(summary(outcome));
process.exitCode = outcome.isGood ? 0 : 1;

function argumentsOf(given) {
  const own = ['--quick', '--long'];
  return {
    quick: given.includes('--quick'),
    long: given.includes('--long'),
    options: given.filter(each => !own.includes(each)),
  };
}
