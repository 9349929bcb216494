// mocha's spec reporter plus one closing line, `N passed, N failed[, N skipped]`, that CI reads. Where KOFN_TEST_STATS names a file the
// counts, and what failed, go there instead: lanes.mjs adds them up.
'use strict';
const { writeFileSync } = require('node:fs');
const { reporters } = require('mocha');

module.exports = class ClosingLine extends reporters.Spec {
  epilogue() {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    const failed = this.failures.map(test => `${test.fullTitle()}: ${test.err.message.split('\n')[0]}`);
    const file = process.env['KOFN_TEST_STATS'];
    if (file) writeFileSync(file, JSON.stringify({ passes, failures, pending, failed }));
    else console.log(`${passes} passed, ${failures} failed${pending ? `, ${pending} skipped` : ''}`);
  }
};
