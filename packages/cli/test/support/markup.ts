/** A strict reading of HTML and SVG: enough to see that every tag is closed, every attribute quoted, every character escaped. */
import assert from 'node:assert/strict';

/** Elements of HTML that have no end. */
const VOID = new Set(['meta', 'br', 'hr', 'link', 'img', 'input']);

export interface Markup {
  readonly ids: readonly string[];
  /** Levels of the headings, in order. */
  readonly headings: readonly number[];
}

export function wellFormed(text: string): Markup {
  const open: string[] = [];
  const ids: string[] = [];
  const headings: number[] = [];
  const token = /<!DOCTYPE html>|<\/([\w-]+)\s*>|<([\w-]+)((?:\s+[\w:-]+(?:="[^"<]*")?)*)\s*(\/?)>|([^<]+)/y;
  while (token.lastIndex < text.length) {
    const from = token.lastIndex;
    const match = token.exec(text);
    assert.ok(match !== null, `no markup at ${from}: ${text.slice(from, from + 80)}`);
    const [, closing, opening, attributes = '', selfClosing, characters] = match;
    if (closing !== undefined) assert.equal(closing, open.pop(), `at ${from}: ${text.slice(from - 80, from + 20)}`);
    if (opening !== undefined) {
      const id = / id="([^"]*)"/.exec(attributes)?.[1];
      if (id !== undefined) ids.push(id);
      if (/^h[1-6]$/.test(opening)) headings.push(Number(opening[1]));
      checkEscapes(attributes, from);
      if (selfClosing !== '/' && !VOID.has(opening)) open.push(opening);
    }
    const inside = open.at(-1);
    if (characters !== undefined && inside !== 'script' && inside !== 'style') checkEscapes(characters, from);
  }
  assert.deepEqual(open, [], 'all closed');
  return { ids, headings };
}

function checkEscapes(text: string, at: number): void {
  assert.doesNotMatch(text, /&(?!(?:amp|lt|gt|quot|#39|#x?[0-9a-f]+);)/i, `an & that is no escape near ${at}`);
}
