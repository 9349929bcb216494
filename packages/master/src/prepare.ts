/**
 * A model made ready to be planned and cut: normalised once by ONNX Runtime (constants and BatchNormalization folded), under
 * the names that its file gives. Where the engine cannot normalise (WebAssembly) it is taken as it is.
 *
 * Invariants
 * 1. Weights stay in the file and are read when they are needed; no more than the model's structure is in memory.
 * 2. `settle` removes the temporary folder: from then on nothing is left behind, even by a SIGKILL. The open file stays
 *    readable until `close`.
 */
import { link, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Engine, Session } from '@kofn/engine';
import {
  computedWeights,
  imageOfFiles,
  loadModel,
  openExternal,
  probeModel,
  saveModel,
  withConstants,
  type ModelFiles,
  type OnnxModel,
} from '@kofn/graph';
import { openLocally, storing } from './local-session.js';

/** A path, the bytes of an ONNX file, or model and external weights as bytes. */
export type ModelSource = string | Uint8Array | ModelFiles;

export interface PreparedModel {
  readonly model: OnnxModel;
  /** Names of nodes in the order of the file, which ONNX Runtime changes. */
  readonly fileOrder: readonly string[];
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

/**
 * Throws NOT_FOUND, INVALID_MODEL (ONNX Runtime's words when it refuses the model), DATA_LOSS, UNSUPPORTED, STORAGE (no
 * room for a temporary copy).
 */
export async function prepareModel(source: ModelSource, engine: Engine): Promise<PreparedModel> {
  const original = await loadModel(source);
  if (engine.normalise === undefined) {
    const model = await folded(original, engine);
    return shared({
      model,
      fileOrder: original.nodes.map(node => node.name),
      probe: (values, threads) => openLocally(engine, probeModel(model, values), threads),
      settle: () => Promise.resolve(),
      close: () => Promise.resolve(),
    });
  }
  const folder = await storing(mkdtemp(path.join(tmpdir(), 'kofn-model-')));
  const settle = () => rm(folder, { recursive: true, force: true });
  try {
    return await normalised(source, original, engine, engine.normalise, folder, settle);
  } catch (error) {
    await settle();
    throw error;
  }
}

async function normalised(
  source: ModelSource,
  original: OnnxModel,
  engine: Engine,
  normalise: NonNullable<Engine['normalise']>,
  folder: string,
  settle: () => Promise<void>,
): Promise<PreparedModel> {
  const given = path.join(folder, 'given');
  const normal = path.join(folder, 'normal');
  const probed = path.join(folder, 'probe');
  await storing(Promise.all([mkdir(given), mkdir(normal), mkdir(probed)]));
  let modelFile = path.join(given, 'model.onnx');
  if (typeof source === 'string') modelFile = path.resolve(source);
  else {
    const files = source instanceof Uint8Array ? { model: source, weights: new Uint8Array() } : source;
    await storing(saveModel(imageOfFiles(files), given));
  }
  await normalise(modelFile, normal);
  await rm(given, { recursive: true });
  const weights = path.join(normal, 'weights.bin');
  await storing(writeFile(weights, '', { flag: 'a' })); // there is none when all constants are small
  const external = openExternal(weights);
  try {
    const loaded = await loadModel(path.join(normal, 'model.onnx'), { readExternal: external.read, original });
    const model = await folded(loaded, engine);
    return shared({
      model,
      fileOrder: original.nodes.map(node => node.name),
      async probe(values, threads) {
        await storing(saveModel(probeModel(model, values, { inPlace: true }), probed));
        await storing(link(weights, path.join(probed, 'weights.bin')));
        return engine.open(probed, { threads });
      },
      settle,
      async close() {
        await settle();
        external.close();
      },
    });
  } catch (error) {
    external.close();
    throw error;
  }
}

/** The model with the weights that its constants alone make as constants. */
async function folded(model: OnnxModel, engine: Engine): Promise<OnnxModel> {
  const computed = computedWeights(model);
  if (computed === undefined) return model;
  await using session = await openLocally(engine, computed.image(), 1);
  return withConstants(model, await session.run({}));
}
