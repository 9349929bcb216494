// Makes docs/images/page.png: the page of `kofn serve` while it classifies the sample pictures, some seconds after worker 2 was killed from it.
//   node scripts/page-picture.mjs [FILE] [--width 1280] [--dark] [--camera]      (needs Debian's chromium, and a checkout that is built)
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { width: { type: 'string', default: '1280' }, dark: { type: 'boolean' }, camera: { type: 'boolean' } },
});
const at = relative => fileURLToPath(new URL(`../${relative}`, import.meta.url));
const [file = at('docs/images/page.png')] = positionals;
/** Pictures that have been classified: ten, and two dozen. */
const SOME = /picture [1-9]\d+ ·/;
const MORE = /picture (2[4-9]|[3-9]\d|\d{3,}) ·/;

const token = randomBytes(16).toString('hex');
const options = ['--local', '5', '--allow-faults', '--http', '127.0.0.1:0', '--grpc', 'off', '--json'];
const labels = ['--labels', at('models/fashion-labels.txt')];
const command = [at('packages/cli/bin/kofn.js'), 'serve', at('models/fashion-cnn.onnx'), ...labels, ...options];
const server = spawn(process.execPath, command, {
  env: { ...process.env, KOFN_TOKEN: token },
  stdio: ['ignore', 'pipe', 2],
});
const [line] = await once(createInterface({ input: server.stdout }), 'line');
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
});
try {
  const page = await browser.newPage({
    viewport: { width: Number(values.width), height: 900 },
    colorScheme: values.dark ? 'dark' : 'light',
  });
  await page.goto(`http://${JSON.parse(line).http}/#token=${token}`);
  await page.getByRole('button', { name: values.camera ? 'Camera' : 'Samples', exact: true }).click();
  await page.getByText(SOME).waitFor({ timeout: 120_000 });
  await page.getByRole('button', { name: 'Kill worker 2' }).click();
  await page.getByText(MORE).waitFor({ timeout: 120_000 });
  mkdirSync(path.dirname(file), { recursive: true });
  await page.screenshot({ path: file, fullPage: true });
  console.log(file);
} finally {
  await browser.close();
  server.kill('SIGTERM');
  await once(server, 'exit');
}
