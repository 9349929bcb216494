/**
 * How every figure is set: its panels side by side, and below them in small grey type what is emulated and the command that makes it, so
 * that neither is lost where the picture goes without its caption. SVG by the theme of the failure benchmark; PNG of that SVG.
 *
 * Invariants
 * 1. The same spec gives the same bytes on every machine: the PNG's type is that of a package, not of the system.
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import { GREY, INK, toSvg, type TopLevelSpec } from 'kofn/measure';
import { Resvg } from '@resvg/resvg-js';

export type Panel = Extract<TopLevelSpec, { hconcat: unknown }>['hconcat'][number];
/** One of those that lie on each other in a panel. */
export type Layer = Extract<Panel, { layer: unknown }>['layer'][number];

/** Pixels of the PNG for each of the picture. */
const SCALE = 2;
const FOOT_SIZE = 9.5;
const FOOT_LINE = 13;
/** Of a character of the foot and of the subtitle, on average: where lines are broken. */
const FOOT_WIDTH = 5.3;
const SUBTITLE_WIDTH = 6.2;
const MARGIN = 10;

export interface Frame {
  /** Of the figure and its config. */
  readonly name: string;
  readonly title: string;
  readonly subtitle: string;
  /** For those who do not see the picture: what it shows, with its main numbers. */
  readonly description: string;
  /** What is emulated, in a line. */
  readonly emulated: string;
  readonly panels: readonly Panel[];
  /** Of all panels together with what stands beside them: where lines of the foot and of the subtitle end. */
  readonly width: number;
  /** Between panels, from frame to frame: with room for an axis. */
  readonly spacing?: number;
}

export function framed({
  name,
  title,
  subtitle,
  description,
  emulated,
  panels,
  width,
  spacing = 70,
}: Frame): TopLevelSpec {
  const lines = [...broken(emulated, width / FOOT_WIDTH), `npm run figures -- ${name}`];
  return {
    title: { text: title, subtitle: broken(subtitle, width / SUBTITLE_WIDTH), anchor: 'start', limit: 2000 },
    description,
    spacing: 14,
    vconcat: [
      {
        hconcat: [...panels],
        spacing,
        bounds: 'flush',
        resolve: { scale: { color: 'independent', shape: 'independent', strokeDash: 'independent' } },
      },
      {
        width,
        height: lines.length * FOOT_LINE,
        view: { stroke: null },
        data: { values: lines.map((text, line) => ({ text, line })) },
        mark: { type: 'text', align: 'left', baseline: 'top', fontSize: FOOT_SIZE, color: GREY },
        encoding: {
          x: { value: 0 },
          y: { field: 'line', type: 'quantitative', axis: null, scale: { domain: [0, lines.length], reverse: true } },
          text: { field: 'text', type: 'nominal' },
        },
      },
    ],
  };
}

interface AxisOptions {
  readonly title: string;
  readonly domain: readonly [number, number];
  readonly isLog?: boolean;
  readonly values?: readonly number[];
  readonly format?: string;
  readonly grid?: boolean;
}

/** A position by `field` on an axis that is as it is said, not rounded. */
export function axis(field: string, { title, domain, isLog = false, values, format, grid = true }: AxisOptions) {
  return {
    field,
    type: 'quantitative' as const,
    scale: { type: isLog ? ('log' as const) : ('linear' as const), domain: [...domain], nice: false },
    axis: {
      title,
      grid,
      ...(format === undefined ? {} : { format }),
      ...(values === undefined ? { tickCount: 5 } : { values: [...values] }),
    },
  };
}

/** The place of `value` on such an axis. */
export function at({ field: _, ...rest }: ReturnType<typeof axis>, value: number) {
  return { ...rest, datum: value };
}

/** Words on a picture, at a place of its axes. */
export function label(
  encoding: Record<string, unknown>,
  text: string | readonly string[],
  mark: Record<string, unknown> = {},
): Layer {
  return {
    data: { values: [{}] },
    mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: 10.5, color: INK, ...mark, text },
    encoding,
  } as Layer;
}

export async function picturesOf(spec: TopLevelSpec): Promise<{ readonly svg: string; readonly png: Uint8Array }> {
  const svg = cropped(await toSvg(spec));
  return { svg, png: rendererOf(svg).render().asPng() };
}

/**
 * The layout guesses how wide words are, and leaves room for what they might take: cut to what is there, with a margin, as the font of the
 * PNG has it, which is a wide one.
 */
function cropped(svg: string): string {
  const bare = svg.replace(/<rect width="[^"]*" height="[^"]*" fill="#ffffff"[^>]*\/?>(<\/rect>)?/, '');
  // Grounds of groups that nobody sees are as wide as words were guessed to be.
  const seen = bare.replace(/<path class="background"(?![^>]*(?:stroke|fill)=)[^>]*>/g, '');
  const box = rendererOf(seen).getBBox();
  if (box === undefined) throw new Error('the picture is empty');
  const [x, y] = [box.x - MARGIN, box.y - MARGIN].map(Math.floor) as [number, number];
  const [width, height] = [box.x + box.width - x, box.y + box.height - y].map(edge => Math.ceil(edge + MARGIN));
  const ground = `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="#ffffff"/>`;
  return bare
    .replace(
      / width="[^"]*" height="[^"]*" viewBox="[^"]*"/,
      ` width="${width}" height="${height}" viewBox="${x} ${y} ${width} ${height}"`,
    )
    .replace('</desc>', `</desc>${ground}`);
}

function rendererOf(svg: string): Resvg {
  const fonts = path.dirname(createRequire(import.meta.url).resolve('dejavu-fonts-ttf/package.json'));
  return new Resvg(svg, {
    fitTo: { mode: 'zoom', value: SCALE },
    background: '#ffffff',
    font: {
      loadSystemFonts: false,
      fontFiles: ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map(file => path.join(fonts, 'ttf', file)),
      defaultFontFamily: 'DejaVu Sans',
      sansSerifFamily: 'DejaVu Sans',
    },
  });
}

/** `text` in lines of at most `length` characters, broken between words. */
function broken(text: string, length: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= length) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
