/** The configs that come with kofn, by name: bench/failure/ in a checkout, copied into the package by its build. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('../../../../configs/', import.meta.url));

export function shippedNames(): string[] {
  return readdirSync(FOLDER)
    .filter(file => file.endsWith('.yaml'))
    .map(file => path.basename(file, '.yaml'))
    .sort();
}

/** The file of a config that comes with kofn and is called `nameOrFile`; else `nameOrFile` itself. */
export function shippedConfig(nameOrFile: string): string {
  return shippedNames().includes(nameOrFile) ? path.join(FOLDER, `${nameOrFile}.yaml`) : nameOrFile;
}
