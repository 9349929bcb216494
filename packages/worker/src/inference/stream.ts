/**
 * One request on a ModelStreamInfer of a worker: what wire's serve-stream.ts asks for. One request's way is inference.ts. Only a fault
 * that was asked for (faults.ts) takes a reply away or changes it. A reply to a request that asked for it says how long it took here.
 */
import { abortReason, type Signal } from '@kofn/core';
import { errorFrame, replyFrame, timesParameters, type InferRequestMessage, type MessageParts } from '@kofn/wire';
import { asComputed, asSent, isLost } from '../faults/faults.js';
import { infer, type InferenceParts } from './inference.js';

export async function answerOnStream(
  request: InferRequestMessage,
  parts: InferenceParts,
  { signal, crc }: { readonly signal: Signal; readonly crc: number | undefined },
): Promise<MessageParts | undefined> {
  const fate = parts.faults?.meet();
  const { clock } = parts;
  const start = clock.now();
  try {
    const { response: computed, queueMs, engineMs } = await infer(request, parts, signal, fate);
    const wantsTimes = request.parameters['kofn_times']?.bool_param === true;
    const parameters = wantsTimes ? timesParameters({ queueMs, engineMs, workerMs: clock.now() - start }) : {};
    if (isLost(fate)) return undefined;
    // Started before its cancel came: what was computed is not wanted, how long it took is.
    if (signal.aborted) return errorFrame(request, abortReason(signal), parameters);
    const raw = computed.raw_output_contents ?? [];
    const response = fate === undefined ? computed : { ...computed, raw_output_contents: asComputed(raw, fate) };
    const frame = replyFrame({ infer_response: { ...response, parameters } }, crc);
    const payload = response.raw_output_contents?.at(-1);
    return fate === undefined ? frame : asSent(frame, fate, payload, crc !== undefined);
  } catch (error) {
    if (isLost(fate)) return undefined;
    throw error;
  }
}
