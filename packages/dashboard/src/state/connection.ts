/**
 * The page's link to its server: reads events, and reads on from the last one when the link was lost. A token, where the server wants one,
 * comes from the address (`#token=…`, which never leaves the browser) or from the reader, and is kept for this tab.
 */
import type { FaultRequest, PagePatch, PageState } from '../protocol.js';
import { EventParser } from './server-sent-events.js';
import { isSameServer, withPatch, withState } from './store.js';

export type Link = 'connecting' | 'live' | 'lost' | 'token';

/** Figures come each second: a link that says nothing for so long is none. */
const SILENCE_MS = 8_000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 4_000;
const TOKEN = 'kofn-token';

export class Connection {
  state: PageState | undefined;
  link: Link = 'connecting';
  readonly #onChange: () => void;
  #lastId: string | undefined;
  #waitMs = FIRST_WAIT_MS;
  #wait: ReturnType<typeof setTimeout> | undefined;

  /** `onChange` is called when `state` or `link` is another. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
    const given = /^#token=(.+)$/.exec(location.hash)?.[1];
    if (given === undefined) return;
    sessionStorage.setItem(TOKEN, decodeURIComponent(given));
    history.replaceState(null, '', location.pathname + location.search);
  }

  /** Reads from now on, as long as the page is there. */
  start(): void {
    clearTimeout(this.#wait);
    void this.#read();
  }

  useToken(token: string): void {
    sessionStorage.setItem(TOKEN, token);
    this.#told('connecting');
    this.start();
  }

  /** `fetch` with the token. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    const token = sessionStorage.getItem(TOKEN);
    if (token !== null) headers.set('authorization', `Bearer ${token}`);
    return fetch(path, { ...init, headers });
  }

  /** Throws what the server says. */
  async bringFault(request: FaultRequest): Promise<void> {
    const headers = { 'content-type': 'application/json' };
    const response = await this.fetch('kofn/v1/faults', { method: 'POST', headers, body: JSON.stringify(request) });
    if (!response.ok) throw new Error(await errorOf(response));
  }

  async #read(): Promise<void> {
    const reading = new AbortController();
    let watch = setTimeout(() => reading.abort(), SILENCE_MS);
    try {
      const headers = new Headers({ accept: 'text/event-stream' });
      if (this.#lastId !== undefined) headers.set('last-event-id', this.#lastId);
      const response = await this.fetch('kofn/v1/events', { headers, signal: reading.signal, cache: 'no-store' });
      if (response.status === 401 || response.status === 403) return this.#told('token');
      if (!response.ok || response.body === null) throw new Error(await errorOf(response));
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(watch);
        watch = setTimeout(() => reading.abort(), SILENCE_MS);
        for (const { id, event, data } of parser.push(value)) this.#take(id, event, data);
      }
    } catch {
      // Whatever it was, the link is gone, and is made again below.
    } finally {
      clearTimeout(watch);
    }
    this.#told('lost');
    this.#wait = setTimeout(() => void this.#read(), this.#waitMs);
    this.#waitMs = Math.min(LONGEST_WAIT_MS, 2 * this.#waitMs);
  }

  #take(id: string, event: string, data: string): void {
    const isKnown = this.#lastId !== undefined && isSameServer(id, this.#lastId);
    this.#lastId = id;
    this.#waitMs = FIRST_WAIT_MS;
    if (event === 'state') this.state = withState(isKnown ? this.state : undefined, JSON.parse(data) as PageState);
    else if (this.state !== undefined) this.state = withPatch(this.state, JSON.parse(data) as PagePatch);
    this.#told('live');
  }

  #told(link: Link): void {
    this.link = link;
    this.#onChange();
  }
}

/** The server's own words, where it has some. */
export async function errorOf(response: Response): Promise<string> {
  const text = await response.text().catch(() => '');
  try {
    const { error, message } = JSON.parse(text) as { error?: unknown; message?: unknown };
    const said = message ?? error;
    if (typeof said === 'string') return said;
  } catch {
    // no JSON
  }
  return `the server answered ${response.status} ${response.statusText}`;
}
