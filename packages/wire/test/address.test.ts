import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import {
  DEFAULT_WORKER_PORT,
  formatAddress,
  parseListen,
  parseServer,
  parseWorker,
  parseWorkers,
} from '../src/protocol/address.js';

const refuses = (work: () => unknown, message: string) =>
  assert.throws(work, (error: Error & { code: string }) => {
    assert.deepEqual([error.code, error.message], ['INVALID_ARGUMENT', message]);
    return true;
  });
const FORM = 'HOST:PORT, such as pi1:7453 or [fd00::1]:7453';

describe('an address', () => {
  it('of a worker is one text for all ways to write it', () => {
    const same: [string, string[]][] = [
      ['pi1:7453', ['pi1', 'PI1', ' pi1:7453\n', 'pi1:07453']],
      ['10.0.0.1:80', ['10.0.0.1:80', '10.0.0.1:080']],
      ['[::1]:7453', ['[::1]', '[0:0:0:0:0:0:0:1]:7453', '[::0001]:7453']],
      ['[fe80::1%eth0]:9', ['[fe80:0::1%eth0]:9']],
      ['board_3.local.:7453', ['board_3.local.']],
      ['bücher.example:7453', ['Bücher.example']],
    ];
    for (const [expected, given] of same)
      for (const text of given) assert.equal(parseWorker('--workers', text), expected);
    assert.equal(DEFAULT_WORKER_PORT, 7453);
  });

  it('to listen on may lack its host, take a free port, and lack a port where there is a default', () => {
    assert.deepEqual(parseListen('--listen', ':0', 7453), { host: '127.0.0.1', port: 0 });
    assert.deepEqual(parseListen('--http', '0.0.0.0', 8000), { host: '0.0.0.0', port: 8000 });
    assert.deepEqual(parseListen('--http', '[::]', 8000), { host: '::', port: 8000 });
    assert.deepEqual(parseServer('target', '[fd00::1]:1'), { host: 'fd00::1', port: 1 });
    assert.equal(formatAddress('fd00::1', 1), '[fd00::1]:1');
  });

  const wrong: [unknown, string][] = [
    ['', `is no address; give ${FORM}`],
    [7453, `is not text; give ${FORM}`],
    ['7453', 'has no host; give HOST:7453'],
    [':7453', 'has no host; give HOST:7453'],
    ['::1:7453', 'is an IPv6 address without brackets; give [::1]:7453'],
    ['::1', 'is an IPv6 address without brackets; give [::1]:7453'],
    ['fe80::1%eth0', 'is an IPv6 address without brackets; give [fe80::1%eth0]:7453'],
    ['pi1:7453:7454', `is no address; give ${FORM}`],
    ['[pi1]:7453', `has in brackets what is no IPv6 address; give ${FORM}`],
    ['[::1', `is no address; give ${FORM}`],
    ['[::1]7453', `is no address; give ${FORM}`],
    ['http://pi1:7453', 'begins with a scheme; give pi1:7453'],
    ['grpc://user@[::1]:9/x?y', 'begins with a scheme; give [::1]:9'],
    ['pi1:7453/v2', 'has a path; give pi1:7453'],
    ['pi@pi1:7453', 'has a user name; give pi1:7453'],
    ['pi1: 7453', `has a space in it; give ${FORM}`],
    ['pi1,pi2', 'has a comma in it; give each address by itself'],
    ['*:7453', `has a host that is neither a name nor an IP address; give ${FORM}`],
    ['1.2.3.400:7453', `has a host that is no IPv4 address; give ${FORM}`],
    ['1.2.3:7453', `has a host that is no IPv4 address; give ${FORM}`],
    ['pi1:', 'has no port; give one port from 1 to 65535: pi1:7453'],
    ['pi1:0', 'has the port 0; give one port from 1 to 65535: pi1:7453'],
    ['pi1:99999', 'has the port 99999; give one port from 1 to 65535: pi1:7453'],
    ['pi1:7453-7460', 'has the port 7453-7460; give one port from 1 to 65535: pi1:7453'],
    ['pi1:http', 'has the port http; give one port from 1 to 65535: pi1:7453'],
    ['pi1:-1', 'has the port -1; give one port from 1 to 65535: pi1:7453'],
  ];
  for (const [given, message] of wrong) {
    it(`that is ${JSON.stringify(given)} is refused with what is right`, () =>
      refuses(() => parseWorker('--workers', given), `--workers: "${String(given)}" ${message}`));
  }

  it('is refused without a port where there is no default', () =>
    refuses(
      () => parseListen('--metrics', 'pi1'),
      '--metrics: "pi1" has no port; give one port from 0 to 65535: pi1:PORT',
    ));

  it('of each worker is there, and there once', () => {
    assert.deepEqual(parseWorkers('workers', ['pi2', 'pi1:1']), ['pi2:7453', 'pi1:1']);
    refuses(() => parseWorkers('workers', []), `workers: give at least one address, as ${FORM}`);
    refuses(
      () => parseWorkers('workers', ['a', ' ', 'b']),
      'workers: address 2 of 3 is empty; take out the comma that is too many',
    );
    refuses(
      () => parseWorkers('workers', ['a', 'b', 'A:7453']),
      'workers: a:7453 is listed twice; each worker counts once',
    );
    refuses(
      () => parseWorkers('workers', ['[::1]:1', '[0::1]:1']),
      'workers: [::1]:1 is listed twice; each worker counts once',
    );
  });
});
