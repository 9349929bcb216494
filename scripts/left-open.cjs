// Run by mocha before the tests (.mocharc.json). A test that leaves a timer, socket or child open keeps mocha alive for ever: this
// says what is open, and fails, when the process still lives so long after the last test.
'use strict';
const { setTimeout } = require('node:timers');

const GRACE_MS = 30_000;

exports.mochaHooks = {
  afterAll() {
    setTimeout(() => {
      const handles = process._getActiveHandles().map(handle => {
        const { pid, spawnargs, localPort, remotePort, fd } = handle;
        return `${handle.constructor.name} ${JSON.stringify({ pid, spawnargs, localPort, remotePort, fd })}`;
      });
      console.error(`Left open by the tests: ${process.getActiveResourcesInfo().join(', ')}\n${handles.join('\n')}`);
      process.once('exit', () => (process.exitCode = 1)); // after mocha's own, which sets it to the number of failures
      process.exit();
    }, GRACE_MS).unref();
  },
};
