// Run by mocha before the tests (.mocharc.json). A timer, socket or child that a test leaves open keeps mocha alive for ever: when the
// process still lives so long after the last test, this says what is open, and ends it with the result that the tests had. When nothing
// is open it ends it at once: twice Node did not come to an end by itself then, its main thread busy and no timer of ours fired any more.
'use strict';
const { setTimeout } = require('node:timers');

const GRACE_MS = 20_000;

exports.mochaHooks = {
  afterAll() {
    process.once('beforeExit', () => process.exit());
    setTimeout(() => {
      const handles = process._getActiveHandles().map(handle => {
        const { pid, spawnargs, localPort, remotePort, fd } = handle;
        return `${handle.constructor.name} ${JSON.stringify({ pid, spawnargs, localPort, remotePort, fd })}`;
      });
      console.error(`Left open by the tests: ${process.getActiveResourcesInfo().join(', ')}\n${handles.join('\n')}`);
      process.exit();
    }, GRACE_MS).unref();
  },
};
