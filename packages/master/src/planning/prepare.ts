/**
 * A model made ready to be planned and cut, in one of three forms: normalised by ONNX Runtime (constants and BatchNormalization folded),
 * under the names that its file gives; as its file has it, where the engine cannot normalise (WebAssembly) or does not open what it has
 * normalised; whole, where it does not open the file's parts either. So whatever ONNX Runtime opens can be planned.
 *
 * Invariants
 * 1. Weights stay in the file and are read when they are needed; no more than the model's structure is in memory.
 * 2. `settle` removes the temporary folder: from then on nothing is left behind, even by a SIGKILL. The open file stays
 *    readable until `close`.
 */
import { mkdir, mkdtemp, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError, type KofnError } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import {
  computedWeights,
  fileModel,
  imageOfFiles,
  loadModel,
  openExternal,
  probeModel,
  saveModel,
  withConstants,
  withoutOthers,
  type ModelFiles,
  type ModelImage,
  type OnnxModel,
} from '@kofn/graph';
import { openLocally, storing } from '../blocks/local-session.js';

/** A path, the bytes of an ONNX file, or model and external weights as bytes. */
export type ModelSource = string | Uint8Array | ModelFiles;

export interface PreparedModel {
  readonly model: OnnxModel;
  /** Names of nodes in the order of the file, which ONNX Runtime changes. */
  readonly fileOrder: readonly string[];
  /** What its user has to know of how it is run: a sentence each. */
  readonly notes: readonly string[];
  /** Opens the model with `values` as its outputs. Not after `settle`. Throws what `Engine.open` throws. */
  readonly probe: (values: readonly string[], threads: number) => Promise<Session>;
  settle(): Promise<void>;
  /** The same model once more, for a deployment beside this one; its probes run on `engine`. */
  share(engine: Engine): PreparedModel;
  /** Settles, and closes the weights when nobody shares them: constants cannot be read any more. */
  close(): Promise<void>;
}

/** `prepared` for as many as `share` it: what it has open is closed with the last of them. */
function shared(prepared: Omit<PreparedModel, 'share'>): PreparedModel {
  let users = 0;
  const use = (probe: PreparedModel['probe']): PreparedModel => {
    let isClosed = false;
    users++;
    return {
      ...prepared,
      probe,
      share: engine => use((values, threads) => openLocally(engine, probeModel(prepared.model, values), threads)),
      async close() {
        if (isClosed) return;
        isClosed = true;
        users--;
        await (users === 0 ? prepared.close() : prepared.settle());
      },
    };
  };
  return use(prepared.probe);
}

/** Written beyond what was there to find out whether there is room. */
const ROOM_BYTES = 2 ** 24;

type ModelForm = 'normalised' | 'as its file has it' | 'whole';

/**
 * `use` of the model in the first form that it takes: where it throws INVALID_MODEL or UNSUPPORTED it is given the next, and the notes say
 * why. What it does not take in any form is closed, and fails with what it said of the first. Throws NOT_FOUND, INVALID_MODEL (ONNX
 * Runtime's words when it refuses the model), DATA_LOSS, UNSUPPORTED, STORAGE (no room for a temporary copy), else what `use` throws.
 */
export async function prepareModel<T>(
  source: ModelSource,
  engine: Engine,
  use: (prepared: PreparedModel) => Promise<T>,
): Promise<T> {
  const forms: ModelForm[] = ['as its file has it', 'whole'];
  if (engine.normalise !== undefined) forms.unshift('normalised');
  let refusal: KofnError | undefined;
  for (const form of forms) {
    let prepared: PreparedModel | undefined;
    try {
      prepared = form === 'normalised' ? await normalised(source, engine) : await asItIs(source, engine, form, refusal);
      return await use(prepared);
    } catch (error) {
      await prepared?.close();
      if (!isKofnError(error, 'INVALID_MODEL') && !isKofnError(error, 'UNSUPPORTED')) throw error;
      refusal ??= error;
    }
  }
  throw refusal!;
}

/** `refusal` is what was said of the first form, where there was one. */
async function asItIs(source: ModelSource, engine: Engine, form: ModelForm, refusal: KofnError | undefined) {
  const original = await loadModel(source);
  const why = refusal === undefined ? 'the WebAssembly engine does not normalise' : wordsOf(refusal);
  const undivided = form === 'whole' ? `ONNX Runtime opens the model as a whole only: ${why}` : undefined;
  const model = undivided === undefined ? await folded(original, engine) : { ...original, undivided };
  const note = undivided ?? `not normalised, and run as its file has it: ${why}`;
  return shared({
    model,
    fileOrder: namesOf(original),
    notes: [...(engine.name === 'simulated' ? [] : [note]), ...notesOf(original)],
    probe: (values, threads) => openLocally(engine, probeModel(model, values), threads),
    settle: () => Promise.resolve(),
    close: () => Promise.resolve(),
  });
}

async function normalised(source: ModelSource, engine: Engine): Promise<PreparedModel> {
  const original = await loadModel(source);
  const folder = await storing(mkdtemp(path.join(tmpdir(), 'kofn-model-')));
  const settle = () => rm(folder, { recursive: true, force: true });
  const given = path.join(folder, 'given');
  const normal = path.join(folder, 'normal');
  const weights = path.join(normal, 'weights.bin');
  let opened: ReturnType<typeof openExternal> | undefined;
  try {
    await storing(Promise.all([mkdir(given), mkdir(normal)]), folder);
    const isFile = typeof source === 'string' && !original.isRewritten;
    if (!isFile) await storing(saveModel(givenImage(source, original), given), folder);
    await engine.normalise!(isFile ? path.resolve(source) : path.join(given, 'model.onnx'), normal);
    await rm(given, { recursive: true });
    await storing(writeFile(weights, '', { flag: 'a' }), folder); // there is none when all constants are small
    const external = openExternal(weights);
    opened = external;
    const loaded = await loadModel(path.join(normal, 'model.onnx'), { readExternal: external.read, original });
    const model = await folded(loaded, engine);
    return shared({
      model,
      fileOrder: namesOf(original),
      notes: notesOf(original),
      async probe(values, threads) {
        await storing(saveModel(probeModel(model, values, { inPlace: true }), normal), folder);
        return engine.open(normal, { threads });
      },
      settle,
      async close() {
        await settle();
        external.close();
      },
    });
  } catch (error) {
    opened?.close();
    const mayBeFull = isKofnError(error, 'INVALID_MODEL') || isKofnError(error, 'DATA_LOSS');
    await storing(mayBeFull ? requireRoom(normal) : Promise.resolve(), folder).finally(settle);
    throw error;
  }
}

/**
 * ONNX Runtime says no more of a full disk or a quota than that it failed, so this asks the system: where files stand in `folder`, which it
 * removes, it writes somewhat more than they had. Rejects with the system's words.
 */
async function requireRoom(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  if (names.length === 0) return; // it was not writing
  let left = ROOM_BYTES;
  for (const name of names) {
    const file = path.join(folder, name);
    left += (await stat(file)).size;
    await rm(file);
  }
  await using file = await open(path.join(folder, 'room'), 'w');
  for (const piece = new Uint8Array(ROOM_BYTES); left > 0; left -= piece.byteLength) await file.write(piece);
}

/** The file for ONNX Runtime to read, where it is not the user's own. */
function givenImage(source: ModelSource, original: OnnxModel): ModelImage {
  if (typeof source === 'string' || original.isRewritten) return fileModel(original);
  return imageOfFiles(source instanceof Uint8Array ? { model: source, weights: new Uint8Array() } : source);
}

function namesOf({ nodes }: OnnxModel): string[] {
  return nodes.map(node => node.name);
}

/** Of outputs that nobody gets. */
function notesOf({ otherOutputs }: OnnxModel): string[] {
  return otherOutputs.map(
    other => `output "${other.name}" is ${other.kind}, which kofn does not carry; ${withoutOthers([other])}`,
  );
}

/** What ONNX Runtime has against a model, without the temporary place where it found it. */
function wordsOf({ message }: KofnError): string {
  const [line = ''] = message.split('\n');
  return line.replace(/^ONNX Runtime cannot open the model .*?: /, '').replace(/^Load model from .*? failed: ?/, '');
}
/** The model with the weights that its constants alone make as constants. */
async function folded(model: OnnxModel, engine: Engine): Promise<OnnxModel> {
  const computed = computedWeights(model);
  if (computed === undefined) return model;
  await using session = await openLocally(engine, computed.image(), 1);
  return withConstants(model, await session.run({}));
}
