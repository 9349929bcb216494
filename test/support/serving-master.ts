/**
 * A master as a process of its own, as a service around kofn is: it answers its parent's requests over IPC, and on SIGTERM it drains,
 * and has then nothing left to do. rolling-restart.test.ts forks it with MasterSettings as JSON.
 */
import { KofnError } from '@kofn/core';
import { codedModel, connect } from 'kofn';
import { loadDemoData } from 'kofn/measure';

export interface MasterSettings {
  readonly workers: readonly string[];
  /** Of the cluster: whose the shards on the workers are. */
  readonly id: string;
}

export type ToMaster =
  { readonly kind: 'run'; readonly id: number; readonly picture: number } | { readonly kind: 'count' };

export type FromMaster =
  /** It serves, and has sent so much to workers. */
  | { readonly kind: 'ready'; readonly sentBytes: number }
  | { readonly kind: 'output'; readonly id: number; readonly output: readonly number[] }
  | { readonly kind: 'failed'; readonly id: number; readonly code: string; readonly message: string }
  /** Requests under way. */
  | { readonly kind: 'count'; readonly requests: number }
  | { readonly kind: 'draining' };

const settings = JSON.parse(process.argv[2]!) as MasterSettings;
const data = await loadDemoData();
// Nobody is lost here for being silent: the test stops workers to hold requests.
const cluster = await connect({ ...settings, silenceMs: 60_000 });
let sentBytes = 0;
const model = await codedModel(data.modelPath, { cluster, onProgress: sent => (sentBytes = sent.sentBytes) });
const answers = new Set<Promise<void>>();

process.on('message', (message: ToMaster) => {
  if (message.kind === 'count') return void say({ kind: 'count', requests: answers.size });
  const answer = run(message).finally(() => answers.delete(answer));
  answers.add(answer);
});
process.once('SIGTERM', () => void stop());
await say({ kind: 'ready', sentBytes });

async function run({ id, picture }: Extract<ToMaster, { kind: 'run' }>): Promise<void> {
  try {
    const { outputs } = await model.run(data.inputs(picture));
    const [output] = Object.values(outputs);
    await say({ kind: 'output', id, output: [...(output!.data as Float32Array)] });
  } catch (error) {
    const { code, message } = KofnError.from(error);
    await say({ kind: 'failed', id, code, message });
  }
}

async function stop(): Promise<void> {
  const drained = cluster.drain();
  await say({ kind: 'draining' });
  await drained;
  await Promise.all(answers);
  process.disconnect(); // the last that keeps it alive: it exits by itself, or something was left
}

/** Resolves when the parent has it, or is gone. */
function say(message: FromMaster): Promise<void> {
  return new Promise(resolve => process.send!(message, () => resolve()));
}
