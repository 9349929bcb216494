/**
 * What a run leaves in a folder, and how it is read again.
 *
 * Invariants
 * 1. `result.json` is written first: no fault of a picture loses a run.
 * 2. A file is there whole or not at all: it is written beside its place and then moved to it.
 * 3. What is written can be read: it is checked by the schema before.
 */
import { access, constants, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import { z } from 'zod';
import { RESULT_SCHEMA, runResult, type RunResult } from '../result/result.js';

export interface Written {
  readonly json: string;
  readonly html: string;
  readonly markdown: string;
}

/** Sees that files can be written to `folder`, and makes it: to be asked before a run that takes hours. Throws STORAGE. */
export async function openFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw storage(folder, cause);
  }
}

/**
 * Writes result.json, report.html and report.md to `folder`, in the place of earlier ones. Throws STORAGE (folder or disk), INTERNAL (a
 * result that does not fit its schema).
 */
export async function writeResult(result: RunResult, folder: string): Promise<Written> {
  const checked = runResult.safeParse(result);
  if (!checked.success) throw new KofnError('INTERNAL', `the result does not fit its schema: ${whyNot(checked.error)}`);
  await openFolder(folder);
  const written = {
    json: path.join(folder, 'result.json'),
    html: path.join(folder, 'report.html'),
    markdown: path.join(folder, 'report.md'),
  };
  await writeWhole(written.json, `${JSON.stringify(checked.data)}\n`);
  const [{ resultHtml }, { resultMarkdown }] = await Promise.all([import('./html.js'), import('./table.js')]);
  await writeWhole(written.markdown, `${resultMarkdown(checked.data, 1)}\n`);
  await writeWhole(written.html, await resultHtml(checked.data));
  return written;
}

/**
 * Reads what `writeResult` wrote: the JSON, the page, or the folder. Throws NOT_FOUND, and INVALID_ARGUMENT for a file that cannot be
 * read, is no result, or is one of another version.
 */
export async function readResult(file: string): Promise<RunResult> {
  const text = await textOf(file);
  const isPage = /^\s*</.test(text.slice(0, 100));
  const json = isPage ? (await import('./html.js')).embeddedJson(text) : text;
  if (json === undefined)
    throw bad(file, 'a page without a result in it; give the report.html of kofn bench failure, or its result.json');
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw bad(file, `no JSON (${(cause as Error).message})`, cause);
  }
  const schema = typeof value === 'object' && value !== null && 'schema' in value ? value.schema : undefined;
  if (schema === undefined) throw bad(file, 'no result of kofn bench failure: it has no field "schema"');
  if (schema !== RESULT_SCHEMA) {
    throw bad(
      file,
      `has the schema ${JSON.stringify(schema)}, and this kofn reads ${RESULT_SCHEMA}; use the kofn that wrote it, or run it again`,
    );
  }
  const checked = runResult.safeParse(value);
  if (!checked.success) throw bad(file, whyNot(checked.error));
  return checked.data;
}

async function textOf(file: string): Promise<string> {
  try {
    const isFolder = (await stat(file)).isDirectory();
    return await readFile(isFolder ? path.join(file, 'result.json') : file, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new KofnError('NOT_FOUND', `${file}: there is no such result`, { cause });
    throw bad(file, `cannot be read (${code ?? (cause as Error).message})`, cause);
  }
}

/** Writes a file in the place of an earlier one, whole or not at all. Throws STORAGE. */
export async function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  const beside = `${file}.${process.pid}.tmp`;
  try {
    // On the disk before it takes the place of an earlier one, or a crash could leave neither.
    await writeFile(beside, content, { flush: true });
    await rename(beside, file);
  } catch (cause) {
    await rm(beside, { force: true }).catch(() => undefined);
    throw storage(file, cause);
  }
}

/** The first thing that is wrong, by its path. */
function whyNot(error: z.ZodError): string {
  const issue = error.issues[0]!;
  const more = error.issues.length - 1;
  return `${z.core.toDotPath(issue.path) || 'result'}: ${issue.message}${more > 0 ? ` (and ${more} more)` : ''}`;
}

function bad(file: string, why: string, cause?: unknown): KofnError {
  return new KofnError('INVALID_ARGUMENT', `${file}: ${why}`, { cause });
}

function storage(file: string, cause: unknown): KofnError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why: Record<string, string> = {
    ENOSPC: 'the disk is full',
    EDQUOT: 'the quota of the disk is used up',
    EACCES: 'no permission',
    EPERM: 'no permission',
    EROFS: 'the file system is read-only',
    ENOTDIR: 'part of its path is a file',
    EEXIST: 'there is a file of that name',
  };
  const said = why[code ?? ''];
  return new KofnError(
    'STORAGE',
    `${file}: cannot be written: ${said === undefined ? (code ?? message) : `${said} (${code})`}`,
    { cause },
  );
}
