/** The page's files, built by packages/dashboard: few and small, so all are read when the server starts. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { KofnError } from '@kofn/core';

export interface PageFile {
  /** From the root: `/`, `/assets/…`. */
  readonly url: string;
  readonly bytes: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
};

/** Beside those that every answer has (http.ts): the page may use the camera, and nothing else that it has to ask for. */
const PAGE_HEADERS = {
  'cross-origin-opener-policy': 'same-origin',
  'permissions-policy': 'camera=(self), microphone=(), geolocation=()',
} as const;

/** Throws NOT_FOUND when the page was not built. */
export function readPage(): PageFile[] {
  const index = fileURLToPath(import.meta.resolve('@kofn/dashboard/page/index.html'));
  const root = path.dirname(index);
  try {
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => fileAt(root, path.join(entry.parentPath, entry.name)));
  } catch (cause) {
    const message = `${index} is missing; in a checkout run \`npm run setup\`, else install kofn again`;
    throw new KofnError('NOT_FOUND', message, { cause });
  }
}

function fileAt(root: string, file: string): PageFile {
  const name = path.relative(root, file).split(path.sep).join('/');
  const isHashed = name.startsWith('assets/');
  return {
    url: name === 'index.html' ? '/' : `/${name}`,
    bytes: readFileSync(file),
    headers: {
      ...PAGE_HEADERS,
      'content-type': TYPES[path.extname(name)] ?? 'application/octet-stream',
      'cache-control': isHashed ? 'public, max-age=31536000, immutable' : 'no-cache',
    },
  };
}
