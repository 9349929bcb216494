/**
 * Browsers that listen to the feed, each by Server-Sent Events (HTML Living Standard, 9.2) on a response of its own.
 *
 * Invariant: one that does not read costs MAX_BACKLOG_BYTES at most, and is then cut off; it may come again.
 */
import type { ServerResponse } from 'node:http';
import type { Message } from './message-ring.js';

export const MAX_READERS = 32;
const MAX_BACKLOG_BYTES = 2 ** 20;
/** What a browser waits before it comes again. */
const RETRY_MS = 500;

/** What is read: feed.ts. */
export interface MessageSource {
  read(
    read: (message: Message) => void,
    lastId: string | undefined,
  ): { readonly missed: readonly Message[] | undefined; readonly state: Message; readonly stop: () => void };
}

export class Readers {
  readonly #feed: MessageSource;
  readonly #open = new Set<ServerResponse>();

  constructor(feed: MessageSource) {
    this.#feed = feed;
  }

  get isFull(): boolean {
    return this.#open.size >= MAX_READERS;
  }

  get count(): number {
    return this.#open.size;
  }

  /** Tells `response`, whose head is written, all from after `lastId`, until it or the feed ends. */
  add(response: ServerResponse, lastId: string | undefined): void {
    this.#open.add(response);
    const write = (event: string, { id, data }: Message) => {
      if (response.writableLength > MAX_BACKLOG_BYTES) response.destroy();
      else response.write(`id: ${id}\nevent: ${event}\ndata: ${data}\n\n`);
    };
    const { missed, state, stop } = this.#feed.read(message => write('patch', message), lastId);
    response.once('close', () => {
      stop();
      this.#open.delete(response);
    });
    response.write(`retry: ${RETRY_MS}\n\n`);
    if (missed === undefined) write('state', state);
    else for (const message of missed) write('patch', message);
  }

  /** Ends all. */
  end(): void {
    for (const response of this.#open) response.end();
  }
}
