// Makes docs/demo.svg: `npm run demo` as a terminal shows it, once in the middle, with the worker dead, and at the end.
//   node scripts/demo-picture.mjs        (needs tmux, and a checkout that is built)
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const [COLUMNS, LINES, WAIT_MS] = [84, 40, 60_000];
const [CHARACTER, LINE, FONT] = [7.8, 16, 13];
const SESSION = `kofn-picture-${process.pid}`;
const tmux = (...args) => execFileSync('tmux', args, { encoding: 'utf8' });
const screen = () => tmux('capture-pane', '-p', '-t', SESSION).split('\n');

async function until(seen) {
  for (let waited = 0; waited < WAIT_MS; waited += 50) {
    const lines = screen();
    if (seen(lines)) return lines;
    await sleep(50);
  }
  throw new Error(`the demo did not get there:\n${screen().join('\n')}`);
}

const demo = `${process.execPath} ${fileURLToPath(new URL('../packages/cli/bin/kofn.js', import.meta.url))} demo`;
tmux('new-session', '-d', '-s', SESSION, '-x', String(COLUMNS), '-y', String(LINES), `${demo}; sleep 60`);
let shown;
try {
  const bar = (await until(lines => lines.some(line => line.includes('○')))).find(line => line.includes('○'));
  const end = await until(lines => lines.some(line => line.startsWith('└')));
  const table = end.slice(
    end.findIndex(line => line.startsWith('┌')),
    end.findIndex(line => line.startsWith('└')) + 1,
  );
  const notes = end.slice(
    0,
    end.findIndex(line => line.startsWith('2/2')),
  );
  shown = ['$ npm run demo', ...notes, bar, '  ⋮', ...table];
} finally {
  tmux('kill-session', '-t', SESSION);
}

const escape = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const colour = line => (line.startsWith('$') ? '#7ee787' : line.includes('●') ? '#79c0ff' : '#e6edf3');
// One element a character column keeps boxes closed whatever font is there.
const rows = shown.map((line, row) => {
  const y = 44 + row * LINE;
  const xs = [...line].map((_, column) => (16 + column * CHARACTER).toFixed(1)).join(' ');
  return `<text x="${xs}" y="${y}" fill="${colour(line)}" xml:space="preserve">${escape(line)}</text>`;
});
const width = 32 + Math.round(Math.max(...shown.map(line => [...line].length)) * CHARACTER);
const height = 44 + shown.length * LINE;
writeFileSync(
  new URL('../docs/demo.svg', import.meta.url),
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="Output of npm run demo">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<circle cx="20" cy="16" r="5" fill="#ff5f57"/><circle cx="38" cy="16" r="5" fill="#febc2e"/><circle cx="56" cy="16" r="5" fill="#28c840"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${FONT}">
${rows.join('\n')}
</g>
</svg>
`,
);
console.log('docs/demo.svg');
