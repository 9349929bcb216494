/**
 * Picture files, read by sharp (libvips). It is an optional dependency and loaded here alone, when the first picture is read: who gives
 * none, and every worker, does without it.
 *
 * Invariants
 * 1. Nothing is decoded before the size that the header gives is known and allowed.
 * 2. Pixels are upright (EXIF orientation) and sRGB (ICC profile), as a viewer and the page show them.
 * 3. A damaged file is an error, never a picture with a part missing.
 */
import { KofnError } from '@kofn/core';
import type Sharp from 'sharp';
import type { FileKind } from './file-kind.js';

export interface PictureFile {
  /** Upright, in pixels. */
  readonly width: number;
  readonly height: number;
  /** What the pixels do not tell: bits or frames that are left out, colours that were converted. */
  readonly remarks: readonly string[];
  /** Rows from the top, 4 bytes a pixel: red, green, blue, alpha. Throws DATA_LOSS when the file is damaged. */
  readonly rgba: () => Promise<Uint8Array>;
}

/** 8192 x 8192: 268 MB once decoded. */
const MAX_PIXELS = 2 ** 26;
/** libvips' names of the sample types and colour spaces that have an exact or a usual meaning in sRGB of 8 bits. */
const DEPTHS: ReadonlySet<string | undefined> = new Set(['uchar', 'ushort']);
const SPACES: ReadonlySet<string | undefined> = new Set(['srgb', 'rgb', 'rgb16', 'b-w', 'grey16', 'cmyk']);

/**
 * Reads the header of `bytes`, a picture of that format. Throws UNSUPPORTED (sharp is not there; samples or channels that are no
 * colours), INVALID_ARGUMENT (more than 67 million pixels), DATA_LOSS (damaged).
 */
export async function openPicture(bytes: Uint8Array, { format }: FileKind, origin: string): Promise<PictureFile> {
  const sharp = await loadSharp(origin);
  // The limits are those below.
  const open = () => sharp(bytes, { failOn: 'warning', limitInputPixels: false, limitInputChannels: false });
  const damaged = (cause: unknown) => {
    const [why] = String(cause instanceof Error ? cause.message : cause).split('\n');
    return new KofnError('DATA_LOSS', `${origin} is a damaged ${format} picture (${why}); get or save it again`, {
      cause,
    });
  };
  const header = await open()
    .metadata()
    .catch((cause: unknown) => Promise.reject(damaged(cause)));
  const { width, height } = header.autoOrient;
  const { depth, space, channels, pages = 1, compression } = header;
  if (width * height > MAX_PIXELS) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${origin} is ${width}x${height} (width x height), more than the ${MAX_PIXELS} pixels that are read; make it smaller`,
    );
  }
  if (header.format === 'heif' && compression !== 'av1') {
    throw new KofnError('UNSUPPORTED', `${origin} is HEIC, which kofn does not read; save it as PNG or JPEG`);
  }
  if (!DEPTHS.has(depth) || !SPACES.has(space) || channels > 4) {
    throw new KofnError(
      'UNSUPPORTED',
      `${origin} is a ${format} with ${channels} channels of ${space}, ${depth} samples: kofn reads grey, RGB and CMYK ` +
        `of 8 or 16 bits; give the numbers as .npy`,
    );
  }
  return {
    width,
    height,
    remarks: [
      ...(pages > 1 ? [`the first of its ${pages} frames or pages`] : []),
      ...(depth === 'ushort' ? ['the upper 8 of its 16 bits a sample'] : []),
      ...(space === 'cmyk' ? ['CMYK, converted to sRGB'] : []),
    ],
    rgba: () =>
      open()
        .autoOrient()
        .toColourspace('srgb')
        .ensureAlpha()
        .raw()
        .toBuffer()
        .catch((cause: unknown) => Promise.reject(damaged(cause))),
  };
}

async function loadSharp(origin: string): Promise<typeof Sharp> {
  try {
    const { default: sharp } = await import('sharp');
    sharp.cache(false); // it would keep what it decoded, and no picture is read twice
    return sharp;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'ERR_MODULE_NOT_FOUND' ? 'is not installed' : `does not load (${message.split('\n')[0]})`;
    throw new KofnError(
      'UNSUPPORTED',
      `${origin} is a picture, and the package sharp, which reads pictures, ${why}: run npm install sharp where kofn is ` +
        `installed, or give the input as .npy`,
      { cause },
    );
  }
}
