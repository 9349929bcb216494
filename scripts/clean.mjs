// Removes what a build made; leaves node_modules.
import { readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = [
  'test',
  'bench',
  'examples',
  ...readdirSync(path.join(root, 'packages')).map(name => `packages/${name}`),
];
for (const folder of folders) {
  for (const made of ['dist', 'tsconfig.tsbuildinfo'])
    rmSync(path.join(root, folder, made), { recursive: true, force: true });
}
