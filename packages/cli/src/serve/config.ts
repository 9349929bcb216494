/**
 * Flags over environment over file: what `kofn serve` is told, as one. The file is YAML by config-schema.ts.
 *
 * Invariant: a field that is not known is refused by name, wherever it stands.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import type { Command, Option } from 'commander';
import { parseDocument } from 'yaml';
import { issueText } from '../failure/config/config.js';
import { serveConfigSchema, type ServeConfig } from './config-schema.js';

/** Reads and checks `file`; paths in it are relative to it. Throws NOT_FOUND, or INVALID_ARGUMENT with every mistake in it. */
export async function readServeConfig(file: string): Promise<ServeConfig> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new KofnError('NOT_FOUND', `--config ${file}: cannot be read (${cause.code})`, { cause });
  });
  const document = parseDocument(text, { prettyErrors: true });
  const [broken] = document.errors;
  const parsed = serveConfigSchema.safeParse(document.toJS({ maxAliasCount: 100 }) ?? {});
  const problems =
    broken !== undefined
      ? [broken.message.split('\n')[0]!]
      : parsed.success
        ? []
        : parsed.error.issues.flatMap(issueText);
  if (!parsed.success || problems.length > 0) {
    throw new KofnError('INVALID_ARGUMENT', `--config ${file}: ${problems.join('; ')}`);
  }
  const folder = path.dirname(file);
  const at = (given: string | undefined) => given && path.resolve(folder, given);
  const { models, tokenFile, tlsCert, tlsKey, ...rest } = parsed.data;
  return withoutUndefined({
    ...rest,
    models: models?.map(model => ({ ...model, file: path.resolve(folder, model.file), labels: at(model.labels) })),
    tokenFile: at(tokenFile),
    tlsCert: at(tlsCert),
    tlsKey: at(tlsKey),
  });
}

/** Gives each option of `command` that no flag gave its value of the environment, or else of `config`. Throws INVALID_ARGUMENT. */
export function settle(command: Command, config: ServeConfig, env: NodeJS.ProcessEnv): void {
  for (const option of command.options) {
    const key = option.attributeName();
    if (command.getOptionValueSource(key) === 'cli' || !Object.hasOwn(serveConfigSchema.shape, key)) continue;
    const text = env[variableOf(key)];
    const value = text === undefined || text === '' ? config[key as keyof ServeConfig] : fromText(option, text);
    if (value !== undefined) command.setOptionValueWithSource(key, value, 'config');
  }
}

/** KOFN_MAX_QUEUE for maxQueue. */
export function variableOf(key: string): string {
  return `KOFN_${key.replace(/[A-Z]/g, letter => `_${letter}`).toUpperCase()}`;
}

function fromText(option: Option, text: string): unknown {
  const variable = variableOf(option.attributeName());
  if (option.isBoolean()) {
    if (['1', 'true', '0', 'false'].includes(text)) return text === '1' || text === 'true';
    throw new KofnError('INVALID_ARGUMENT', `${variable} ${text}: give true or false`);
  }
  try {
    return option.parseArg === undefined ? text : option.parseArg(text, undefined);
  } catch (error) {
    throw new KofnError('INVALID_ARGUMENT', `${variable}: ${KofnError.from(error).message}`, { cause: error });
  }
}

function withoutUndefined(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
