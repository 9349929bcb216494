import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { parseSize, parseWhole, resolveOptions, type WorkerOptions } from '../src/options.js';

describe('worker options', () => {
  it('has defaults for all of them', () => {
    const options = resolveOptions({}, { XDG_DATA_HOME: '/data' });
    assert.deepEqual(
      [options.host, options.port, options.dataDir, options.engine, options.maxQueue, options.maxMessageBytes],
      ['127.0.0.1', 7453, '/data/kofn/worker', 'auto', 64, 256 * 2 ** 20],
    );
    assert.ok(options.threads >= 1 && options.maxMemoryBytes > 1e6);
    assert.match(resolveOptions({}, { XDG_DATA_HOME: 'relative' }).dataDir, /\.local\/share\/kofn\/worker$/);
  });

  it('reads addresses', () => {
    const read = (listen: string) => {
      const { host, port } = resolveOptions({ listen });
      return [host, port];
    };
    assert.deepEqual(read('0.0.0.0:80'), ['0.0.0.0', 80]);
    assert.deepEqual(read('[::1]:7000'), ['::1', 7000]);
    assert.deepEqual(read('0.0.0.0'), ['0.0.0.0', 7453]);
    assert.deepEqual(read(':0'), ['127.0.0.1', 0]);
    assert.deepEqual(read('board-3.local:65535'), ['board-3.local', 65535]);
  });

  it('reads sizes', () => {
    const sizes: [string, number][] = [
      ['1048576', 2 ** 20],
      ['512MB', 512e6],
      ['1GiB', 2 ** 30],
      ['1.5 kib', 1536],
      ['0', 0],
    ];
    for (const [text, bytes] of sizes) assert.equal(parseSize('--max-disk', text), bytes);
    for (const text of ['', 'MB', '1 parsec', '-1', '1e3', '0x10']) {
      assert.throws(() => parseSize('--max-disk', text), { code: 'INVALID_ARGUMENT', message: /--max-disk .*512MB/ });
    }
    assert.throws(() => parseWhole('--threads', '1.5'), { code: 'INVALID_ARGUMENT', message: /--threads 1\.5/ });
  });

  it('names the option, the value and the range', () => {
    const bad: [WorkerOptions, RegExp][] = [
      [{ listen: '7000' }, /--listen: "7000" has no host; give 127\.0\.0\.1:7000/],
      [
        { listen: '127.0.0.1:65536' },
        /--listen: "127.0.0.1:65536" has the port 65536; give one port from 0 to 65535: 127\.0\.0\.1:7453/,
      ],
      [{ listen: '::1:7000' }, /--listen: "::1:7000" is an IPv6 address without brackets; give \[::1\]:7000/],
      [{ metrics: '0.0.0.0' }, /--metrics: "0.0.0.0" has no port; give one port from 0 to 65535/],
      [{ dataDir: '' }, /--data-dir/],
      [{ engine: 'gpu' as 'wasm' }, /--engine gpu: must be auto, native or wasm/],
      [{ threads: 0 }, /--threads 0: .*from 1 to/],
      [{ threads: NaN }, /--threads NaN/],
      [{ maxMemoryBytes: 1 }, /--max-memory 1: /],
      [{ maxDiskBytes: -1 }, /--max-disk -1: /],
      [{ maxMessageBytes: 2 ** 33 }, /--max-message 8589934592: /],
      [{ maxQueue: 0 }, /--max-queue 0: /],
    ];
    for (const [options, message] of bad) {
      assert.throws(() => resolveOptions(options), { code: 'INVALID_ARGUMENT', message });
    }
  });
});
