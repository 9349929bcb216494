/**
 * Pictures through the server, one after the other: from the camera or the samples to what the model sees, its tensor, a request, and the
 * classes of the answer. camera-view.tsx shows it.
 */
import { classesIn, classOutput, type Classes } from './classes.js';
import { errorOf, type Connection } from '../state/connection.js';
import { middleOf, shapeOf, tensorBytes, type ImageInput, type Preprocessing } from './image.js';
import { inferAnswer, inferCall } from './infer.js';
import { PAGE_REQUEST, type ModelLine } from '../protocol.js';
import { loadSamples } from './samples.js';

export type Source = 'camera' | 'samples';

/** A second: what can be read, and what looks alive. */
const RATES: Readonly<Record<Source, number>> = { samples: 3, camera: 8 };
const AFTER_ERROR_MS = 1_000;

export interface Outcome {
  /** Counted from 1. */
  readonly picture: number;
  readonly classes: Classes | undefined;
  /** From the browser and back. */
  readonly ms: number;
  /** Of a sample: the name of what it is. */
  readonly truth: string | undefined;
}

export interface Trial {
  readonly source: Source;
  readonly connection: Connection;
  readonly model: ModelLine;
  /** Where another model of that name is served too. */
  readonly version: string | undefined;
  readonly input: ImageInput;
  readonly options: Preprocessing;
  readonly video: HTMLVideoElement;
  /** Shown with the answer: a sample, and what the model saw of a picture. */
  readonly picture: HTMLCanvasElement;
  readonly seen: HTMLCanvasElement;
  onOutcome(outcome: Outcome): void;
  onError(message: string): void;
}

interface Frame {
  readonly image: CanvasImageSource;
  readonly width: number;
  readonly height: number;
  readonly truth: string | undefined;
  readonly sample: ImageData | undefined;
}

/** Until `signal` aborts. Throws what keeps it from beginning: no camera, or no leave to use it. */
export async function run(trial: Trial, signal: AbortSignal): Promise<void> {
  const frames = trial.source === 'camera' ? await cameraFrames(trial.video, signal) : await sampleFrames(trial);
  for (let picture = 1; !signal.aborted; picture++) {
    const begun = performance.now();
    try {
      if (!document.hidden) trial.onOutcome({ picture, ...(await classify(trial, frames(picture - 1), signal)) });
      await pause(begun + 1000 / RATES[trial.source] - performance.now(), signal);
    } catch (error) {
      if (signal.aborted) return;
      trial.onError(error instanceof Error ? error.message : String(error));
      await pause(AFTER_ERROR_MS, signal);
    }
  }
}

async function classify(trial: Trial, frame: Frame, signal: AbortSignal): Promise<Omit<Outcome, 'picture'>> {
  const { input, model, version, connection, picture, seen } = trial;
  const sight = lookAt(input, frame);
  const bytes = tensorBytes(sight.data, input, trial.options);
  const id = `${PAGE_REQUEST}${crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36)}`;
  const tensor = { name: input.name, datatype: input.datatype, shape: shapeOf(input), bytes };
  const outputs = model.outputs.map(({ name }) => name);
  const { path, headers, body } = inferCall({ name: model.name, version }, { id, input: tensor, outputs });
  const begun = performance.now();
  const response = await connection.fetch(path, {
    method: 'POST',
    headers,
    body: new Blob([body as BlobPart]),
    signal,
  });
  if (!response.ok) throw new Error(await errorOf(response));
  const answer = inferAnswer(response.headers, await response.arrayBuffer());
  const ms = performance.now() - begun;
  show(seen, sight);
  if (frame.sample !== undefined) show(picture, frame.sample);
  const classes = classesIn(classOutput(answer.outputs, model.labels)?.values ?? [], model.labels);
  return { classes, ms, truth: frame.truth };
}

/** What the model sees of it: the middle, made to fit. */
function lookAt(input: ImageInput, { image, width, height }: Frame): ImageData {
  const context = new OffscreenCanvas(input.width, input.height).getContext('2d', { willReadFrequently: true })!;
  context.imageSmoothingQuality = 'high';
  const middle = middleOf({ width, height }, input);
  context.drawImage(image, middle.x, middle.y, middle.width, middle.height, 0, 0, input.width, input.height);
  return context.getImageData(0, 0, input.width, input.height);
}

function show(canvas: HTMLCanvasElement, image: ImageData): void {
  if (canvas.width !== image.width) canvas.width = image.width;
  if (canvas.height !== image.height) canvas.height = image.height;
  canvas.getContext('2d')!.putImageData(image, 0, 0);
}

async function cameraFrames(video: HTMLVideoElement, signal: AbortSignal): Promise<() => Frame> {
  if (!isSecureContext) throw new Error('browsers give the camera only to https and to localhost');
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  const stop = () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  video.srcObject = stream;
  await video.play();
  return () => ({
    image: video,
    width: video.videoWidth,
    height: video.videoHeight,
    truth: undefined,
    sample: undefined,
  });
}

async function sampleFrames({ model }: Trial): Promise<(index: number) => Frame> {
  const samples = await loadSamples();
  const { width, height, count } = samples;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d')!;
  const labels = model.labels?.length === samples.classes ? model.labels : undefined;
  return index => {
    const sample = samples.picture(index % count);
    context.putImageData(sample, 0, 0);
    return { image: canvas, width, height, truth: labels?.[samples.label(index % count)], sample };
  };
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(over, Math.max(0, durationMs));
    function over() {
      clearTimeout(timer);
      signal.removeEventListener('abort', over);
      resolve();
    }
    signal.addEventListener('abort', over, { once: true });
  });
}
