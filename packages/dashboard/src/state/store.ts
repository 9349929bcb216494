/** What the page knows: the server's state, with each patch laid over it. Nothing of it is lost while the connection is. */
import type { EventLine, PagePatch, PageState, RequestLine } from '../protocol.js';

const KEPT_REQUESTS = 32;
const KEPT_EVENTS = 100;

/** Whether messages with these ids are of one server: another, or the same one started again, counts requests and time anew. */
export function isSameServer(id: string, otherId: string): boolean {
  return id.split('-')[0] === otherId.split('-')[0];
}

/** A state after a lost connection to the same server: requests and events that were seen stay. */
export function withState(old: PageState | undefined, next: PageState): PageState {
  if (old === undefined) return next;
  return {
    ...next,
    requests: withRequests(old.requests, next.requests),
    events: withEvents(old.events, next.events),
  };
}

export function withPatch(
  old: PageState,
  { workers = [], requests = [], events = [], ...whole }: PagePatch,
): PageState {
  const changed = new Map(workers.map(worker => [worker.index, worker]));
  const known = old.workers.map(worker => changed.get(worker.index) ?? worker);
  const added = workers.filter(({ index }) => !old.workers.some(worker => worker.index === index));
  return {
    ...old,
    ...whole,
    workers: workers.length === 0 ? old.workers : [...known, ...added].sort((a, b) => a.index - b.index),
    requests: requests.length === 0 ? old.requests : withRequests(old.requests, requests),
    events: events.length === 0 ? old.events : withEvents(old.events, events),
  };
}

/** By number, each once; what is told again is known better. */
function withRequests(old: readonly RequestLine[], next: readonly RequestLine[]): RequestLine[] {
  const byNumber = new Map([...old, ...next].map(request => [request.number, request]));
  return [...byNumber.values()].sort((a, b) => a.number - b.number).slice(-KEPT_REQUESTS);
}

function withEvents(old: readonly EventLine[], next: readonly EventLine[]): EventLine[] {
  const each = new Map([...old, ...next].map(event => [`${event.atMs} ${event.message}`, event]));
  return [...each.values()].sort((a, b) => a.atMs - b.atMs).slice(-KEPT_EVENTS);
}
