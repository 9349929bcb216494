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

/** Nothing but what this server serves; the camera's pictures are blobs. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  'media-src blob:',
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export const SECURITY_HEADERS = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
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
      ...SECURITY_HEADERS,
      'content-type': TYPES[path.extname(name)] ?? 'application/octet-stream',
      'cache-control': isHashed ? 'public, max-age=31536000, immutable' : 'no-cache',
    },
  };
}
