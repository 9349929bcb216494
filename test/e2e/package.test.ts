/** The packages as npm would publish them: nothing that they need is missing from them. The long form installs them in a fresh folder. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'mocha';
import { itWhenLong } from '../support/form.js';
import { ended, json, MODEL, ROOT, Sandbox, type Ended } from './command.js';

const OFFLINE = /ENOTFOUND|EAI_AGAIN|ENETUNREACH|ECONNREFUSED|ETIMEDOUT|ENOTCACHED/;

interface Packed {
  readonly name: string;
  readonly files: readonly { readonly path: string }[];
}

describe('the packed packages', () => {
  it('hold what they export, run and read', async function () {
    this.timeout(120_000);
    using sandbox = new Sandbox();
    const packed = await npm(sandbox, ROOT, 'pack', '--workspaces', '--dry-run', '--json');
    assert.equal(packed.code, 0, packed.stderr);
    const packages = json<Packed[]>(packed);
    assert.equal(packages.length, 9);
    for (const { name, files } of packages) {
      const held = files.map(file => file.path);
      const folder = path.join(ROOT, 'packages', name === 'kofn' ? 'cli' : name.replace('@kofn/', ''));
      const { exports, bin = {} } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as {
        exports: Record<string, string | Record<string, string>>;
        bin?: Record<string, string>;
      };
      const named = [
        ...Object.values(exports).flatMap(each => (typeof each === 'string' ? each : Object.values(each))),
        ...Object.values(bin),
      ];
      for (const file of named) {
        const [start = '', end = ''] = path.normalize(file).split('*');
        assert.ok(
          held.some(each => each.startsWith(start) && each.endsWith(end)),
          `${name}: ${file}`,
        );
      }
      assert.ok(!held.some(file => file.includes('/test/')), `${name} holds tests`);
    }
    const [kofn, wire, page] = ['kofn', '@kofn/wire', '@kofn/dashboard'].map(
      name => new Set(packages.find(each => each.name === name)!.files.map(file => file.path)),
    );
    for (const file of ['models/fashion-cnn.onnx', 'models/networks.mjs', 'configs/quick.yaml'])
      assert.ok(kofn!.has(file), file);
    assert.ok(wire!.has('protos/open_inference.proto') && page!.has('dist/page/index.html'));
  });

  itWhenLong('install into a fresh folder, run the demo and serve the library', async function () {
    this.timeout(300_000);
    using sandbox = new Sandbox();
    const packed = await npm(sandbox, ROOT, 'pack', '--workspaces', '--pack-destination', sandbox.files);
    assert.equal(packed.code, 0, packed.stderr);
    const tarballs = readdirSync(sandbox.files).filter(name => name.endsWith('.tgz'));
    assert.equal(tarballs.length, 9);

    writeFileSync(path.join(sandbox.files, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
    const installed = await npm(
      sandbox,
      sandbox.files,
      ...['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'],
      ...tarballs.map(name => `./${name}`),
    );
    if (installed.code !== 0 && OFFLINE.test(installed.stderr)) {
      console.error('      skipped: npm reaches no registry, and its cache does not hold every dependency');
      this.skip();
    }
    assert.equal(installed.code, 0, installed.stderr);

    // Pictures are read by sharp, an optional dependency of prebuilt binaries.
    const picture = ['--input', `image=${path.join(ROOT, 'models', 'sample-ankle-boot.png')}`];
    const classify = () => kofn(sandbox, 'run', MODEL, '--local', '2', '--json', ...picture);
    const classified = await classify();
    assert.equal(classified.code, 0, classified.stderr);
    assert.deepEqual(json<{ lost: number }>(classified).lost, 0);
    const modules = path.join(sandbox.files, 'node_modules');
    const binaries = readdirSync(path.join(modules, '@img')).filter(name => name.startsWith('sharp-'));
    for (const [folders, why] of [
      [binaries.map(name => `@img/${name}`), /does not load \(Could not load the "sharp" module/],
      [['sharp'], /is not installed: run npm install sharp where kofn is installed, or give the input as \.npy/],
    ] as const) {
      for (const folder of folders) rmSync(path.join(modules, folder), { recursive: true });
      const refused = await classify();
      assert.equal(refused.code, 2, refused.stderr);
      assert.match(refused.stderr, why);
    }

    // All else, the workers too, does without it.
    const demo = await npm(
      sandbox,
      sandbox.files,
      'exec',
      '--offline',
      '--',
      'kofn',
      'demo',
      '--requests',
      '30',
      '--json',
    );
    assert.equal(demo.code, 0, demo.stderr);
    const { lost, wrong, kill } = json<{ lost: number; wrong: number; kill: { hit: boolean } }>(demo);
    assert.deepEqual([lost, wrong, kill.hit], [0, 0, true]);

    // Configs, the networks that they name, and what draws the report come with the package.
    const cell = ['--config', 'full', '--cells', 'alexnet', '--requests', '1', '--list', '--json'];
    const bench = await npm(
      sandbox,
      sandbox.files,
      ...['exec', '--offline', '--', 'kofn', 'bench', 'failure', ...cell],
    );
    assert.equal(bench.code, 0, bench.stderr);
    assert.equal(json<{ cells: unknown[] }>(bench).cells.length, 2);
    for (const file of ['models/generate.mjs', 'models/networks.mjs', 'dist/src/failure/report/html.js']) {
      assert.ok(existsSync(path.join(sandbox.files, 'node_modules', 'kofn', file)), file);
    }

    const script = path.join(sandbox.files, 'layer.js');
    writeFileSync(
      script,
      `import { codedLayer, connect, float32, startLocalWorkers } from 'kofn';
       import { registerPage, startServer } from 'kofn/serve';
       const workers = await startLocalWorkers(3);
       const cluster = await connect({ workers: workers.addresses });
       const layer = await codedLayer({ type: 'dense', weights: [[1, 2], [3, 4]], bias: [10, 20] }, { cluster, parity: 1 });
       const { output } = await layer.run(float32([1, 2], Float32Array.of(1, 1)));
       const about = { cluster, version: '0', models: [], http: { host: '127.0.0.1', port: 0 } };
       const running = await startServer(about, (app, server) => registerPage(app, server, { faults: undefined }));
       const read = async path => (await fetch('http://' + running.httpAddress + path)).text();
       const [, script] = /src="\\.(\\/assets[^"]+)"/.exec(await read('/'));
       const served = [(await read(script)).length > 10_000, (await read('/metrics')).includes('kofn_requests_total')];
       await running.drain();
       console.log(JSON.stringify({ output: [...output.data], served }));
       await layer.close(); await cluster.close(); await workers.close();`,
    );
    const library = await ended(sandbox.start([], script));
    assert.equal(library.code, 0, library.stderr);
    assert.deepEqual(json<object>(library), { output: [13, 27], served: [true, true] });
    assert.deepEqual(sandbox.processes(), []);
  });
});

/** The command where the packages are installed. */
function kofn(sandbox: Sandbox, ...args: string[]): Promise<Ended> {
  return ended(sandbox.start(args, path.join(sandbox.files, 'node_modules', '.bin', 'kofn')));
}

function npm(sandbox: Sandbox, cwd: string, ...args: string[]): Promise<Ended> {
  const env = { ...process.env, TMPDIR: sandbox.folder, ONNXRUNTIME_NODE_INSTALL: 'skip', NO_COLOR: '1' };
  return ended(spawn('npm', args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] }));
}
