import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { FineClock } from '../../src/failure/links/fine-clock.js';

describe('the clock of the links', () => {
  const clock = new FineClock();

  it('fires everything, and nothing early', async () => {
    const delays = [0, 0.1, 5.5, 0.4, 1.3, 2, 3.7, 0.4, 8.2, 1.9, 12];
    const lateBy = (ms: number) => {
      const start = clock.now();
      return new Promise<number>(resolve => clock.setTimer(() => resolve(clock.now() - start - ms), ms));
    };
    const late = await Promise.all(delays.map(lateBy));
    assert.ok(Math.min(...late) >= 0, `late by ${late.join(' ')} ms`);
  });

  it('does not fire what is cancelled, far or near, by another timer too', async () => {
    let fired = 0;
    for (const ms of [0, 1, 5]) clock.setTimer(() => fired++, ms).cancel();
    const [far, near] = [400, 300].map(ms => clock.setTimer(() => fired++, ms));
    clock.setTimer(() => [far, near].forEach(timer => timer!.cancel()), 1);
    await new Promise<void>(resolve => clock.setTimer(resolve, 8));
    assert.equal(fired, 0);
  });
});
