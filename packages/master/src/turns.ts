/** Work that would hold up the event loop, a few milliseconds at a time. */

/** The end of this turn of the event loop. */
export function nextTurn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}
