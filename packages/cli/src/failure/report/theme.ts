/**
 * How every picture of kofn looks, and how one comes to be: a Vega-Lite spec, rendered to SVG without a browser.
 *
 * Invariants
 * 1. A series is told by its dash and its shape too, never by its colour alone: a print in black and white says the same.
 * 2. Colours are those of Okabe and Ito (2008), which hold for the common kinds of colour blindness, without their yellow, which is
 *    not seen on white. The ground is white whatever is around it.
 * 3. A picture asks for nothing from a network, and the same spec gives the same bytes.
 * 4. Its title and description are those of the spec, for those who do not see it.
 *
 * Vega takes half a second to load: it is loaded with the first picture.
 */
import type { Config, TopLevelSpec } from 'vega-lite';

export type { TopLevelSpec };

export const INK = '#1a1a1a';
export const GREY = '#6b6b6b';
export const PALE = '#d4d4d4';
const PALETTE = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#000000', '#e69f00', '#56b4e9', '#7a7a7a'];
const DASHES = [
  [1, 0],
  [7, 3],
  [2, 2],
  [8, 3, 2, 3],
  [13, 4],
  [4, 2, 1, 2, 1, 2],
  [1, 3],
  [12, 2, 2, 2],
];
const SHAPES = [
  'circle',
  'square',
  'triangle-up',
  'diamond',
  'cross',
  'triangle-down',
  'triangle-right',
  'triangle-left',
];

const CONFIG: Config = {
  background: '#ffffff',
  font: 'sans-serif',
  padding: 8,
  // What a reader is told is the title and description of the whole; each mark's own label would be read aloud one by one.
  aria: false,
  title: {
    anchor: 'start',
    fontSize: 13,
    fontWeight: 600,
    color: INK,
    offset: 8,
    limit: 640,
    subtitleColor: GREY,
    subtitleFontSize: 11,
  },
  axis: {
    labelColor: INK,
    titleColor: INK,
    labelFontSize: 11,
    titleFontSize: 11,
    titleFontWeight: 'normal',
    domainColor: GREY,
    tickColor: GREY,
    gridColor: '#ebebeb',
  },
  legend: {
    labelColor: INK,
    titleColor: INK,
    labelFontSize: 11,
    titleFontSize: 11,
    symbolSize: 70,
    symbolStrokeWidth: 1.8,
  },
  view: { stroke: PALE },
  // Round, as the room that sharp joins might need pushes the title away.
  line: { strokeWidth: 1.8, strokeJoin: 'round' },
};

/** Scales that give each of `names` a colour, a dash and a shape of its own; give the same names to pictures that belong together. */
export function seriesScales(names: readonly string[]) {
  const domain = [...names];
  const cycled = <T>(of: readonly T[]) => domain.map((_, i) => of[i % of.length]!);
  // The second time round a colour meets another dash and shape.
  const shifted = <T>(of: readonly T[]) => domain.map((_, i) => of[(i + Math.floor(i / of.length)) % of.length]!);
  return {
    color: { domain, range: cycled(PALETTE) },
    dash: { domain, range: shifted(DASHES) },
    shape: { domain, range: shifted(SHAPES) },
  };
}

/** Renders `spec` in the theme; what its own config says goes before. */
export async function toSvg(spec: TopLevelSpec): Promise<string> {
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const compiled = compile(spec, {
    config: { ...CONFIG, ...spec.config },
  });
  // Ids in the picture begin anew, or they would depend on what was rendered before.
  vega.resetSVGDefIds();
  const view = new vega.View(vega.parse(compiled.spec), { renderer: 'none', logLevel: vega.Error });
  try {
    return labelled(withoutControls(await view.toSVG()), titleOf(spec), spec.description ?? '');
  } finally {
    view.finalize();
  }
}

/** `svg` with `prefix` before each of its ids, so that several stand in one page. */
export function withIds(svg: string, prefix: string): string {
  return svg
    .replace(/ id="([^"]*)"/g, ` id="${prefix}$1"`)
    .replace(/url\(#/g, `url(#${prefix}`)
    .replace(
      /aria-labelledby="([^"]*)"/g,
      (_, ids: string) => `aria-labelledby="${ids.replace(/\S+/g, `${prefix}$&`)}"`,
    );
}

export function escapeXml(text: string): string {
  const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return withoutControls(text).replace(/[&<>"']/g, character => escapes[character]!);
}

/** XML has no place for them, not even escaped. */
function withoutControls(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '');
}

function labelled(svg: string, title: string, description: string): string {
  const words = `<title id="title">${escapeXml(title)}</title><desc id="desc">${escapeXml(description)}</desc>`;
  return svg.replace(
    /^<svg([^>]*)>/,
    (_, attributes: string) => `<svg role="img" aria-labelledby="title desc"${attributes}>${words}`,
  );
}

function titleOf({ title }: TopLevelSpec): string {
  const text = typeof title === 'object' && 'text' in title ? title.text : title;
  return Array.isArray(text) ? text.join(' ') : typeof text === 'string' ? text : '';
}
