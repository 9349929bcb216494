/** A whole model in ONNX Runtime with one thread and otherwise its defaults, nothing of kofn between. A child of a benchmark. */
import ort from 'onnxruntime-node';
import { parentData, serveParent } from './child.js';
import { cpuMs } from './cpu.js';
import { randomTensors } from './random.js';

export interface SingleNodeData {
  readonly model: string;
  readonly input: string;
  readonly inputShape: readonly number[];
}

/** Answered with their processor time. */
export interface SingleNodeQuestion {
  readonly requests: number;
}

const { model, input, inputShape } = parentData<SingleNodeData>();
const session = await ort.InferenceSession.create(model, {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
});
const feeds = { [input]: new ort.Tensor('float32', randomTensors(1)(inputShape).data, inputShape) };

serveParent(undefined, async question => {
  const before = cpuMs();
  for (let request = 0; request < (question as SingleNodeQuestion).requests; request++) await session.run(feeds);
  return cpuMs() - before;
});
