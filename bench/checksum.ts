/**
 * What the checksum of an inference costs (docs/adr/0003-checksum.md).
 *   npm run build && node bench/dist/checksum.js
 * Its time alone, and that of the whole request to an echo in this process and back over gRPC,
 * with checksums (made and checked on both ends) and without. Medians; the last two are interleaved.
 * Not measured: a network, other machines.
 */
import { checksum, connectChannel, InferStream, listenGrpc, METHODS, readRequest, replyFrame } from '@kofn/wire';
import type { MethodPath, ServerDuplex } from '@kofn/wire';
import { float32, systemClock, tensorBytes } from '@kofn/core';

const ROUNDS = 200;

/** Of each of `works`, one after another in every round. */
async function mediansMs(...works: (() => unknown)[]): Promise<number[]> {
  const times: number[][] = works.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, work] of works.entries()) {
      const start = systemClock.now();
      await work();
      times[index]!.push(systemClock.now() - start);
    }
  }
  return times.map(list => list.sort((a, b) => a - b)[ROUNDS / 2]!);
}

/** Answers each request with its inputs, and checks and adds checksums as a worker does. */
function echo(stream: ServerDuplex): Promise<void> {
  return stream.receive(async message => {
    const crc = checksum.in(message);
    if (crc !== undefined && !checksum.fits(message)) throw new Error('damaged');
    const { id, inputs: outputs, raw_input_contents: raw } = readRequest(message);
    await stream.send(replyFrame({ infer_response: { id, outputs, raw_output_contents: raw } }, crc));
  });
}

const duplex = new Map<MethodPath, typeof echo>([[METHODS.modelStreamInfer, echo]]);
const server = await listenGrpc({ unary: new Map(), clientStream: new Map(), duplex }, { host: '127.0.0.1', port: 0 });
const channel = connectChannel(server.address);
const plain = new InferStream(channel, { canCancel: true });
const checked = new InferStream(channel, { canCancel: true, hasChecksums: true });
console.log('payload, kB | checksum, ms | there and back without, ms | with, ms');
for (const bytes of [150_000, 4_000_000]) {
  const x = float32([bytes / 4], Float32Array.from({ length: bytes / 4 }, Math.sin));
  const request = { model: 'f'.repeat(64), inputs: { x } };
  const cells = [
    ...(await mediansMs(() => checksum.of(tensorBytes(x)))),
    ...(await mediansMs(
      () => plain.infer(request),
      () => checked.infer(request),
    )),
  ];
  console.log(`${bytes / 1000} | ${cells.map(ms => ms.toFixed(3)).join(' | ')}`);
}
for (const stream of [plain, checked]) stream.close();
await channel[Symbol.asyncDispose]();
await server.close(0);
