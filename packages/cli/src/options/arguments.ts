/**
 * Values on the command line, each parsed where commander reads it. A message names the option, what was given and what is
 * allowed. Whether they fit together and fit the model is decided later (commands/).
 */
import { KofnError } from '@kofn/core';
import { parseWorkers } from '@kofn/wire/address';

function invalid(option: string, given: string, allowed: string): KofnError {
  return new KofnError('INVALID_ARGUMENT', `${option} ${given}: ${allowed}`);
}

/** A parser of whole numbers from `min` to `max`. */
export function whole(option: string, min: number, max: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw invalid(option, text, `give a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

/** A parser of decimal numbers from `min` to `max`. */
export function decimal(option: string, min: number, max: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= min && value <= max)) {
      throw invalid(option, text, `give a number from ${min} to ${max}`);
    }
    return value;
  };
}

/** A parser of one of `names`. */
export function oneOf<T extends string>(option: string, names: readonly T[]): (text: string) => T {
  return text => {
    const found = names.find(name => name === text);
    if (found === undefined) throw invalid(option, text, `give one of ${names.join(', ')}`);
    return found;
  };
}

/** A parser of finite numbers with commas between them. */
export function numbers(option: string): (text: string) => readonly number[] {
  return text => {
    const values = text.split(',').map(part => (part.trim() === '' ? NaN : Number(part)));
    if (!values.every(Number.isFinite)) throw invalid(option, text, 'give a number, or one for each channel: a,b,c');
    return values;
  };
}

/** `a,b,c` as its parts; every part must be there. */
export function names(option: string): (text: string) => readonly string[] {
  return text => {
    const parts = text.split(',').map(part => part.trim());
    if (parts.includes('')) throw invalid(option, JSON.stringify(text), 'give names with commas between them: a,b,c');
    return parts;
  };
}

/** The addresses of workers with commas between them, each as `connect` takes it. */
export function addresses(option: string): (text: string) => readonly string[] {
  return text => parseWorkers(option, text.split(','));
}

/** `p95`, or ms as a decimal number. */
export function hedge(text: string): number | 'p95' {
  const ms = Number(text);
  if (text === 'p95') return text;
  if (text.trim() === '' || !(ms >= 0 && ms < 2 ** 31))
    throw invalid('--hedge', text, 'give p95, or ms: a number from 0');
  return ms;
}

/** `all`, `auto`, or the names of layers. */
export function layerChoice(text: string): 'all' | 'auto' | readonly string[] {
  return text === 'all' || text === 'auto' ? text : names('--layers')(text);
}

/** One `--input NAME=FILE`, added to those before it. */
export interface InputFile {
  readonly name: string;
  readonly file: string;
}

export function inputFile(text: string, before: readonly InputFile[] = []): readonly InputFile[] {
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1) throw invalid('--input', text, 'give NAME=FILE, e.g. --input image=boot.png');
  const input = { name: text.slice(0, at), file: text.slice(at + 1) };
  if (before.some(({ name }) => name === input.name)) throw invalid('--input', text, `"${input.name}" is given twice`);
  return [...before, input];
}

/** `--shape INPUT=SIZES`, by input. */
export type Shapes = Readonly<Record<string, readonly number[]>>;

export function parseShape(text: string, before: Shapes = {}): Shapes {
  const [, input, sizes] = /^(.+)=(\d{1,9}(?:,\d{1,9})*)$/.exec(text) ?? [];
  if (input === undefined || sizes === undefined) {
    throw invalid('--shape', text, 'give INPUT=SIZES, such as image=1,3,224,224');
  }
  if (Object.hasOwn(before, input)) throw invalid('--shape', text, `"${input}" is given twice`);
  return { ...before, [input]: sizes.split(',').map(Number) };
}

/** One `--kill I@N`: worker I dies holding request N, both counted from 0. */
export interface Kill {
  readonly worker: number;
  readonly request: number;
}

export function kill(text: string, before: readonly Kill[] = []): readonly Kill[] {
  const match = /^(\d{1,9})@(\d{1,9})$/.exec(text);
  if (match === null) {
    throw invalid('--kill', text, 'give WORKER@REQUEST, both counted from 0, e.g. 2@10');
  }
  const one = { worker: Number(match[1]), request: Number(match[2]) };
  if (before.some(({ worker }) => worker === one.worker)) {
    throw invalid('--kill', text, `worker ${one.worker} is killed twice; a worker dies once`);
  }
  return [...before, one];
}
