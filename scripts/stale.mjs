import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';

const MADE = /(\.d\.ts|\.js)(\.map)?$/;

/** Removes what the compiler made of sources that are gone, in all projects of `root`/tsconfig.json: it would still run, tests first of all. */
export function removeStale(root) {
  const read = (...file) => JSON.parse(readFileSync(path.join(root, ...file), 'utf8'));
  for (const { path: project } of read('tsconfig.json').references) {
    const { include } = read(project, 'tsconfig.json');
    const folders = include.some(name => name.startsWith('*')) ? ['.'] : include;
    for (const folder of folders) {
      const dist = path.join(root, project, 'dist', folder);
      for (const name of existsSync(dist) ? readdirSync(dist, { recursive: true }) : []) {
        const source = path.join(root, project, folder, name.replace(MADE, ''));
        if (MADE.test(name) && !['.ts', '.tsx'].some(end => existsSync(source + end))) rmSync(path.join(dist, name));
      }
    }
  }
}
