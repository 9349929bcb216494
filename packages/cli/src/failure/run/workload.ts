/**
 * What the requests of a cell run: a model in a file, inputs, and what the uncoded model answers to them in ONNX Runtime.
 *
 * Invariants
 * 1. Model, inputs and answers are functions of the config and its seed alone.
 * 2. Files made here go with it.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { KofnError, seededRng, throwIfAborted, type Shape, type Tensors } from '@kofn/core';
import { imageOfFiles, layerModel, loadModel, saveModel, type LinearLayer } from '@kofn/graph';
import type { LayerChoice } from '@kofn/master';
import { loadDemoData } from '../../demo/demo-data.js';
import { openInputs } from '../../io/inputs.js';
import { randomTensor } from '../../io/random-tensor.js';
import { calibrated, type ToleranceOf } from '../../answers/compare.js';
import { Reference } from '../../answers/reference.js';
import type { Workload } from '../config/config-schema.js';

export interface OpenWorkload extends AsyncDisposable {
  readonly modelPath: string;
  readonly layers: LayerChoice;
  /** Of request `request`: they go round the different ones. */
  inputs(request: number): Tensors;
  /** The uncoded model's answer to it. */
  expected(request: number): Tensors;
  readonly toleranceOf: ToleranceOf;
}

const IMAGES = { layout: 'nchw' } as const;

/** Throws what a model that is no model throws, and INVALID_ARGUMENT where its inputs cannot be drawn. */
export async function openWorkload(workload: Workload, seed: number, signal: AbortSignal): Promise<OpenWorkload> {
  const folder = await mkdtemp(path.join(tmpdir(), 'kofn-bench-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const { modelPath, inputs } = await modelOf(workload, seed, folder, signal);
    await using reference = await Reference.open(modelPath, { sample: inputs(0), signal });
    const asked: Tensors[] = [];
    const answers: Tensors[] = [];
    for (let i = 0; i < workload.inputs; i++) {
      asked.push(inputs(i));
      answers.push(await reference.run(asked[i]!));
    }
    return {
      modelPath,
      layers: workload.layers,
      inputs: request => asked[request % asked.length]!,
      expected: request => answers[request % answers.length]!,
      toleranceOf: calibrated(reference.differences),
      [Symbol.asyncDispose]: remove,
    };
  } catch (error) {
    await remove();
    throwIfAborted(signal);
    throw error;
  }
}

interface Source {
  readonly modelPath: string;
  readonly inputs: (i: number) => Tensors;
}

async function modelOf(workload: Workload, seed: number, folder: string, signal: AbortSignal): Promise<Source> {
  const { fc, conv, network, onnx } = workload;
  if (network === 'fashion-cnn') {
    const data = await loadDemoData();
    return { modelPath: data.modelPath, inputs: i => data.inputs(i % data.count) };
  }
  if (onnx !== undefined) return drawnInputs(onnx, seed);
  const modelPath = path.join(folder, 'model.onnx');
  if (network !== undefined) {
    await generate(network, folder, seed, signal);
    return drawnInputs(modelPath, seed);
  }
  const { layer, shape } = fc !== undefined ? denseLayer(fc, seed) : convLayer(conv!, seed);
  await saveModel(imageOfFiles(layerModel(layer)), folder);
  return { modelPath, inputs: i => ({ x: randomTensor('float32', shape, seededRng(seed + i)) }) };
}

async function drawnInputs(modelPath: string, seed: number): Promise<Source> {
  const { inputs } = await loadModel(modelPath);
  const source = await openInputs(inputs, { files: [], seed, image: IMAGES, checkFinite: false });
  return { modelPath, inputs: source.forRequest };
}

/** A network of known shape with random weights (models/generate.mjs), in a process of its own. */
async function generate(network: string, folder: string, seed: number, signal: AbortSignal): Promise<void> {
  const script = fileURLToPath(new URL('../../../../models/generate.mjs', import.meta.url));
  try {
    await promisify(execFile)(process.execPath, [script, network, folder, '--seed', String(seed)], { signal });
  } catch (cause) {
    throwIfAborted(signal);
    throw new KofnError('STORAGE', `workload ${network}: ${(cause as { stderr?: string }).stderr ?? String(cause)}`, {
      cause,
    });
  }
}

interface Layer {
  readonly layer: LinearLayer;
  /** Of its input. */
  readonly shape: Shape;
}

function denseLayer([units, fanIn]: readonly [number, number], seed: number): Layer {
  return { layer: { operator: 'Gemm', name: 'fc', units, fanIn, ...weightsOf(units, fanIn, seed) }, shape: [1, fanIn] };
}

/** Padded to keep height and width. */
function convLayer({ channels, kernel, size }: NonNullable<Workload['conv']>, seed: number): Layer {
  const [units, channelsIn] = channels;
  const fanIn = channelsIn * kernel * kernel;
  const before = Math.floor((kernel - 1) / 2);
  const after = kernel - 1 - before;
  const conv = {
    groups: 1,
    kernel: [kernel, kernel],
    strides: [1, 1],
    dilations: [1, 1],
    pads: [before, before, after, after],
    autoPad: 'NOTSET',
  } as const;
  const layer: LinearLayer = { operator: 'Conv', name: 'conv', units, fanIn, ...weightsOf(units, fanIn, seed), conv };
  return { layer, shape: [1, channelsIn, size, size] };
}

function weightsOf(units: number, fanIn: number, seed: number): { weights: Float32Array; bias: Float32Array } {
  const rng = seededRng(seed);
  const scale = 1 / Math.sqrt(fanIn);
  return {
    weights: Float32Array.from({ length: units * fanIn }, () => scale * rng.normal()),
    bias: Float32Array.from({ length: units }, () => rng.normal()),
  };
}
