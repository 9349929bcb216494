import { defineConfig } from 'vite';

// `node scripts/setup.mjs` builds the page when its sources have changed. Everything is a file of its own with its hash in its name:
// the server's Content-Security-Policy allows nothing inline.
export default defineConfig({
  root: import.meta.dirname,
  base: './',
  publicDir: false,
  logLevel: 'warn',
  assetsInclude: ['**/*.npy'],
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  build: {
    outDir: 'dist/page',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
