/** A temporary folder without room for a copy of the model: STORAGE, whoever of us and ONNX Runtime was writing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { tensor } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import { makeModel } from '../support/onnx-models.js';
import { BIN, Sandbox } from './command.js';

describe('kofn without room for temporary files', () => {
  let sandbox: Sandbox;
  let model: string;
  before(() => {
    sandbox = new Sandbox();
    model = path.join(sandbox.files, 'model.onnx');
    const w = tensor('float32', [1000, 1000], new Float32Array(1e6).fill(0.5)); // 4 MB
    const spec = makeModel({
      nodes: [{ op: 'MatMul', inputs: ['x', 'w'], outputs: ['y'] }],
      inputs: { x: { dtype: 'float32', shape: [1, 1000] } },
      outputs: { y: { dtype: 'float32' } },
      initializers: { w },
    });
    writeFileSync(model, spec.model);
  });
  after(() => sandbox[Symbol.dispose]());

  /** `kofn plan` in a shell that has done `first`. */
  function plan(first: string, folder = sandbox.folder, shell: readonly string[] = ['sh', '-c']) {
    const [command = '', ...more] = shell;
    const args = [...more, `${first}; exec "$0" "$@"`, process.execPath, BIN, 'plan', model, '--json'];
    const { status, stdout, stderr } = spawnSync(command, args, {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: folder, CI: '1' },
    });
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
    assert.equal(error.code, 'STORAGE', stderr);
    assert.equal(status, 1);
    return error.message;
  }

  it('says so where a file may not become as large', () => {
    const message = plan('ulimit -f 3000'); // of 512 bytes or 1 KiB, as the shell has it
    assert.match(
      message,
      /^cannot write a temporary model under .*kofn-e2e-.* \([\d.]+ MB are free there; set TMPDIR to another folder\): EFBIG/,
    );
    assert.ok(message.includes(sandbox.folder));
    sandbox.assertNothingLeft();
  });

  it('says so where the folder is not there, or is a file', () => {
    assert.match(plan('true', path.join(sandbox.files, 'none')), /none \(set TMPDIR to another folder\): ENOENT/);
    assert.match(plan('true', model), /model\.onnx .*ENOTDIR/);
  });

  it('says so where the disk is full or read-only', function () {
    const folder = path.join(sandbox.files, 'small');
    mkdirSync(folder);
    const inNamespace = ['unshare', '--map-root-user', '--mount', 'sh', '-c'];
    const mount = (options: string) => `mount -t tmpfs -o ${options} none '${folder}'`;
    const [unshare = '', ...args] = inNamespace;
    if (spawnSync(unshare, [...args, mount('size=1m')]).status !== 0) {
      this.test!.title += ' (needs a namespace in which tmpfs can be mounted)';
      this.skip();
    }
    assert.match(plan(mount('size=3m'), folder, inNamespace), /small \(3\.1 MB are free there; .*\): ENOSPC/);
    assert.match(plan(mount('size=3m,ro'), folder, inNamespace), /small .*: EROFS/);
    assert.deepEqual(readdirSync(folder), []);
  });
});
