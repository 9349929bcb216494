/** What a file is, told by its first bytes: names are often wrong. */

export interface FileKind {
  /** As a message names it. */
  readonly format: string;
  /** How it becomes a tensor; 'none' when it does not. */
  readonly holds: 'array' | 'picture' | 'none';
  /** Of 'none': what to do instead. */
  readonly advice: string;
}

const AS_PICTURE = 'save it as PNG or JPEG';
const AS_NPY = "save the one array that is meant with numpy.save('x.npy', x)";

/** Bytes as Latin-1 characters, where a dot is any byte; or what the text matches. */
type Beginning = string | RegExp;
const SIGNATURES: readonly (readonly [Beginning[], format: string, holds: FileKind['holds'], advice?: string])[] = [
  [['\x93NUMPY'], '.npy', 'array'],
  [['\x89PNG\r\n\x1a\n'], 'PNG', 'picture'],
  [['\xff\xd8\xff'], 'JPEG', 'picture'],
  [['RIFF....WEBP'], 'WebP', 'picture'],
  [['GIF87a', 'GIF89a'], 'GIF', 'picture'],
  [['II*\0', 'MM\0*', 'II+\0', 'MM\0+'], 'TIFF', 'picture'],
  [['....ftypavi', '....ftypmi', '....ftypmsf1'], 'AVIF', 'picture'],
  [['....ftyphe'], 'HEIC', 'none', AS_PICTURE],
  [['\xff\x0a', '\0\0\0\x0cJXL '], 'JPEG XL', 'none', AS_PICTURE],
  [['\xff\x4f\xff\x51', '\0\0\0\x0cjP  '], 'JPEG 2000', 'none', AS_PICTURE],
  [['BM'], 'BMP', 'none', AS_PICTURE],
  [['\0\0\x01\0', '\0\0\x02\0'], 'ICO', 'none', AS_PICTURE],
  [['8BPS'], 'Photoshop', 'none', AS_PICTURE],
  [[/^P[1-7]\s/], 'Netpbm', 'none', AS_PICTURE],
  [['%PDF'], 'PDF', 'none', 'render it to a PNG of the size that the model takes'],
  [[/^(\xef\xbb\xbf)?\s*<(!doctype\s+)?html/i], 'HTML', 'none', 'was it downloaded from a page that shows the file?'],
  [[/^(\xef\xbb\xbf)?\s*<([?!]|svg)/i], 'SVG', 'none', 'render it to a PNG of the size that the model takes'],
  [['PK\x03\x04'], 'a ZIP archive, as .npz is', 'none', AS_NPY],
  [['\x80\x02', '\x80\x03', '\x80\x04', '\x80\x05'], 'a Python pickle', 'none', AS_NPY],
  [['\x89HDF'], 'HDF5', 'none', AS_NPY],
  [['\x1f\x8b'], 'compressed by gzip', 'none', 'unpack it'],
];
const LONGEST_BYTES = 64;

/** Undefined for what has no signature that is known here, as ONNX TensorProto files have none. */
export function fileKind(bytes: Uint8Array): FileKind | undefined {
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, LONGEST_BYTES)).toString('latin1');
  const found = SIGNATURES.find(([beginnings]) => beginnings.some(beginning => begins(start, beginning)));
  if (found === undefined) return undefined;
  const [, format, holds, advice = ''] = found;
  return { format, holds, advice };
}

function begins(start: string, beginning: Beginning): boolean {
  if (typeof beginning !== 'string') return beginning.test(start);
  return start.length >= beginning.length && [...beginning].every((byte, i) => byte === '.' || byte === start[i]);
}
