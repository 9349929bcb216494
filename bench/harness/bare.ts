/** Both ends' idea of the bare harness's one method, and the client's end of it. */
import { Client, credentials, Metadata, type ClientDuplexStream, type ServiceDefinition } from '@grpc/grpc-js';

const PATH = '/bare.Bare/Exchange';
/** The metadata key that says which shard a stream is for. */
export const SHARD = 'shard';

function identity(bytes: Buffer): Buffer {
  return bytes;
}

export const BARE_SERVICE: ServiceDefinition = {
  exchange: {
    path: PATH,
    requestStream: true,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
};

/** One open stream a server; a message to each, and the first `count` answers. Nothing is cancelled or checked. */
export class BareClients implements Disposable {
  readonly #clients: readonly Client[];
  readonly #streams: readonly ClientDuplexStream<Buffer, Buffer>[];
  #onAnswer: (answer: Buffer, index: number) => void = () => undefined;
  /** Answers that are still to come, those that nobody waits for too. */
  #pending = 0;
  #onIdle: () => void = () => undefined;

  /** `shard` is the number of the shard that each server runs, where it runs any. */
  constructor(addresses: readonly string[], shard = 0) {
    const metadata = new Metadata();
    metadata.set(SHARD, String(shard));
    this.#clients = addresses.map(
      address =>
        new Client(address, credentials.createInsecure(), {
          'grpc.max_receive_message_length': -1,
          'grpc.max_send_message_length': -1,
        }),
    );
    this.#streams = this.#clients.map(client => client.makeBidiStreamRequest(PATH, identity, identity, metadata));
    for (const [index, stream] of this.#streams.entries()) {
      stream.on('error', () => undefined); // the server has gone
      stream.on('data', (answer: Buffer) => {
        if (--this.#pending === 0) this.#onIdle();
        this.#onAnswer(answer, index);
      });
    }
  }

  /** Resolves with the `count` answers that come first. */
  gather(message: Buffer, count: number): Promise<Buffer[]> {
    return new Promise(resolve => {
      const answers: Buffer[] = [];
      this.#onAnswer = answer => {
        answers.push(answer);
        if (answers.length === count) resolve(answers);
      };
      this.#pending += this.#streams.length;
      for (const stream of this.#streams) stream.write(message);
    });
  }

  /** Resolves when every answer has come, so that the next round does not meet this one's. */
  async idle(): Promise<void> {
    if (this.#pending > 0) await new Promise<void>(resolve => (this.#onIdle = resolve));
  }

  [Symbol.dispose](): void {
    for (const stream of this.#streams) stream.cancel();
    for (const client of this.#clients) client.close();
  }
}
