import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['**/dist/**', '**/node_modules/**', '.venv/**', 'packages/cli/models/**'] },
  js.configs.recommended,
  {
    files: ['**/*.{ts,tsx}'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      eqeqeq: 'error',
    },
  },
  {
    // Time and chance are injected (house rule 8): only core may touch the real ones.
    files: ['packages/*/src/**/*.ts'],
    ignores: ['packages/core/src/**', 'packages/dashboard/src/**'], // the page has a browser's own
    rules: {
      'no-restricted-properties': [
        'error',
        { object: 'Math', property: 'random', message: 'Take a Rng (packages/core/src/rng.ts).' },
        { object: 'Date', property: 'now', message: 'Take a Clock (packages/core/src/clock.ts).' },
        { object: 'performance', property: 'now', message: 'Take a Clock (packages/core/src/clock.ts).' },
      ],
      'no-restricted-globals': [
        'error',
        { name: 'setTimeout', message: 'Take a Clock (packages/core/src/clock.ts).' },
        { name: 'setInterval', message: 'Take a Clock (packages/core/src/clock.ts).' },
      ],
    },
  },
  {
    files: ['**/*.test.ts'],
    rules: { '@typescript-eslint/no-unused-expressions': 'off' },
  },
  {
    files: ['**/*.{js,mjs,cjs}'],
    languageOptions: {
      globals: { console: 'readonly', process: 'readonly', require: 'readonly', module: 'writable', URL: 'readonly' },
    },
  },
);
