/** The client's end of http2-server.ts: one session, one stream a request. */
import { once } from 'node:events';
import { connect, type ClientHttp2Session } from 'node:http2';

/** As packages/wire/src/grpc/flow-control.ts: node's own windows would be no baseline. */
export const WINDOW_BYTES = 8 * 2 ** 20;

export class Http2Client implements Disposable {
  readonly #session: ClientHttp2Session;

  static async open(address: string): Promise<Http2Client> {
    const session = connect(`http://${address}`, { settings: { initialWindowSize: WINDOW_BYTES } });
    await once(session, 'connect');
    session.setLocalWindowSize(WINDOW_BYTES);
    return new Http2Client(session);
  }

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  /** Reads `bytes` bytes and lets them go. */
  async get(bytes: number): Promise<void> {
    const stream = this.#session.request({ ':path': `/${bytes}` });
    await once(stream.resume(), 'end');
  }

  /** Sends `body`, in pieces of `pieceBytes`; resolves when it is answered. */
  async post(path: '/count' | '/store', body: Uint8Array, pieceBytes: number): Promise<void> {
    const stream = this.#session.request({ ':method': 'POST', ':path': path }, { endStream: false });
    const ended = once(stream.resume(), 'end');
    for (let at = 0; at < body.byteLength; at += pieceBytes) {
      if (!stream.write(body.subarray(at, at + pieceBytes))) await once(stream, 'drain');
    }
    stream.end();
    await ended;
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}
