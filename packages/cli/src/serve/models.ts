/** What is served: MODEL arguments or the models of a config, with their labels, as `startServer` takes them. */
import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError, type Tensors } from '@kofn/core';
import { loadModel } from '@kofn/graph';
import { zeroInputs, type OnLoss } from '@kofn/master';
import type { ModelFile } from '@kofn/master/serve';
import type { Shapes } from '../options/arguments.js';
import { withShapes } from '../io/inputs.js';
import { codeOptions, type CodeArguments } from '../workers/session.js';
import type { ModelConfig } from './config-schema.js';

/** A MODEL argument: FILE, NAME=FILE or NAME:VERSION=FILE. Throws INVALID_ARGUMENT. */
export function parseModel(text: string): ModelConfig {
  const [, name, version, file] = /^(?:([A-Za-z0-9][\w.-]*)(?::(\d+))?=)?(.+)$/s.exec(text) ?? [];
  if (file === undefined)
    throw new KofnError('INVALID_ARGUMENT', `model "${text}": give FILE, NAME=FILE or NAME:VERSION=FILE`);
  return { ...(name === undefined ? {} : { name }), version: Number(version ?? 1), file };
}

/** `--labels FILE` or NAME=FILE, added to those before it. */
export interface LabelsFile {
  readonly model: string | undefined;
  readonly file: string;
}

export function parseLabels(text: string, before: readonly LabelsFile[] = []): readonly LabelsFile[] {
  const [, model, file = text] = /^([A-Za-z0-9][\w.-]*)=(.+)$/s.exec(text) ?? [];
  return [...before, { model, file }];
}

/**
 * `configured`, with the labels that flags give and all else as `args` says. Throws INVALID_ARGUMENT (labels of a model that is not
 * there, of none in particular where there are several, or more or fewer than it has classes), NOT_FOUND (a file).
 */
export async function modelFiles(
  configured: readonly ModelConfig[],
  args: CodeArguments & { readonly onLoss: OnLoss; readonly labels?: readonly LabelsFile[]; readonly shape?: Shapes },
): Promise<ModelFile[]> {
  const models = configured.map(model => ({ ...model, name: model.name ?? nameOf(model.file) }));
  const labelsOf = new Map(models.map(({ name, labels }) => [name, labels]));
  for (const { model, file } of args.labels ?? []) {
    const names = [...labelsOf.keys()];
    const name = model ?? (names.length === 1 ? names[0] : undefined);
    if (name === undefined || !labelsOf.has(name)) {
      const advice = `give NAME=FILE with one of ${names.join(', ')}`;
      throw new KofnError('INVALID_ARGUMENT', `--labels ${model === undefined ? file : `${model}=${file}`}: ${advice}`);
    }
    labelsOf.set(name, file);
  }
  return Promise.all(
    models.map(async ({ name, version, file, labels: _labels, shapes, ...own }) => {
      await access(file).catch((cause: NodeJS.ErrnoException) => {
        throw new KofnError('NOT_FOUND', `model ${name}: ${file} cannot be read (${cause.code})`, { cause });
      });
      const { onLoss = args.onLoss, ...code } = own;
      const given = Object.fromEntries(Object.entries(code).filter(([, value]) => value !== undefined));
      const labels = labelsOf.get(name);
      const sampleInputs = await samplesOf(file, { ...args.shape, ...shapes });
      return {
        name,
        version: String(version),
        file,
        labels: labels === undefined ? undefined : await readLabels(labels, file),
        options: {
          ...codeOptions({ ...args, ...given }),
          onLoss,
          ...(sampleInputs === undefined ? {} : { sampleInputs }),
        },
      };
    }),
  );
}

/** Zeros of these shapes, of the model's other inputs as it says; undefined where none is one of its inputs. */
async function samplesOf(file: string, shapes: Shapes): Promise<Tensors | undefined> {
  if (Object.keys(shapes).length === 0) return undefined;
  const { inputs } = await loadModel(file);
  const own = Object.fromEntries(Object.entries(shapes).filter(([name]) => inputs.some(input => input.name === name)));
  return Object.keys(own).length === 0 ? undefined : zeroInputs(withShapes(inputs, own));
}

function nameOf(file: string): string {
  return path
    .basename(file)
    .replace(/\.onnx$/i, '')
    .replace(/[^\w.-]/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '');
}

/** One a line; empty lines at the end are none. An output of the model `modelFile` has as many values, or one that does not say how many. */
async function readLabels(file: string, modelFile: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new KofnError('NOT_FOUND', `--labels ${file}: cannot be read (${cause.code})`, { cause });
  });
  const labels = text.trimEnd().split(/\r?\n/);
  const { outputs } = await loadModel(modelFile);
  const isOne = (size: number | string | undefined) => typeof size !== 'number' || size === labels.length;
  if (outputs.some(({ shape }) => isOne(shape?.at(-1)))) return labels;
  const there = outputs.map(({ name, shape }) => `"${name}" [${shape?.join(', ')}]`).join(', ');
  const message = `--labels ${file} has ${labels.length} lines, and ${modelFile} no output with as many values, but ${there}`;
  throw new KofnError('INVALID_ARGUMENT', `${message}; give one line a class, in the order of the output`);
}
