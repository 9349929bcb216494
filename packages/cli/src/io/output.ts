/** Answers as .npy files, NAME.npy in a folder. */
import { access, constants, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError, type Tensors } from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import { writeNpy } from './npy.js';

export class OutputFolder {
  readonly #folder: string;
  readonly #files: ReadonlyMap<string, string>;
  readonly #numbered: boolean;

  private constructor(folder: string, files: ReadonlyMap<string, string>, numbered: boolean) {
    this.#folder = folder;
    this.#files = files;
    this.#numbered = numbered;
  }

  /**
   * Makes the folder and sees that everything can be written to it. With `numbered` a request's files are NAME.REQUEST.npy.
   * Throws STORAGE (folder), UNSUPPORTED (an output that .npy cannot hold).
   */
  static async open(folder: string, outputs: readonly ValueInfo[], numbered: boolean): Promise<OutputFolder> {
    for (const { name, dtype } of outputs) {
      if (dtype !== 'string' && dtype !== 'bfloat16') continue;
      throw new KofnError('UNSUPPORTED', `--output: "${name}" is ${dtype}, which .npy files cannot hold`);
    }
    try {
      await mkdir(folder, { recursive: true });
      await access(folder, constants.W_OK);
    } catch (cause) {
      const why = (cause as NodeJS.ErrnoException).code;
      throw new KofnError('STORAGE', `--output ${folder}: cannot be made or written (${why})`, { cause });
    }
    return new OutputFolder(folder, fileNames(outputs.map(({ name }) => name)), numbered);
  }

  /** Writes the answer to request `request`. Throws STORAGE. */
  async write(request: number, outputs: Tensors): Promise<void> {
    for (const [name, value] of Object.entries(outputs)) {
      const base = this.#files.get(name) ?? fileNames([name]).get(name)!;
      const file = path.join(this.#folder, `${base}${this.#numbered ? `.${request}` : ''}.npy`);
      await writeFile(file, writeNpy(value)).catch((cause: NodeJS.ErrnoException) => {
        throw new KofnError('STORAGE', `--output: ${file} cannot be written (${cause.code})`, { cause });
      });
    }
  }
}

/** A file name for each output: letters, digits, '.', '_' and '-' stay; two outputs never share one. */
export function fileNames(outputs: readonly string[]): Map<string, string> {
  const taken = new Set<string>();
  const names = new Map<string, string>();
  for (const output of outputs) {
    const safe =
      output
        .replace(/[^\w.-]/g, '_')
        .replace(/^\./, '_')
        .slice(0, 200) || '_';
    let name = safe;
    // File systems may not tell upper from lower case.
    for (let i = 2; taken.has(name.toLowerCase()); i++) name = `${safe}_${i}`;
    taken.add(name.toLowerCase());
    names.set(output, name);
  }
  return names;
}
