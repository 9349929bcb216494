/** Work that would hold up the event loop, a few milliseconds at a time. */

/** About so many multiply-accumulates a turn: less than a millisecond's, or a few on a small board. */
const TURN = 2 ** 19;

/** The end of this turn of the event loop. */
export function nextTurn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}

/** What `work`, which says how large each of its pieces was, returns; undefined once it `isInVain`. */
export async function inPieces<T>(work: Generator<number, T>, isInVain: () => boolean): Promise<T | undefined> {
  let done = 0;
  while (!isInVain()) {
    const next = work.next();
    if (next.done === true) return next.value;
    done += next.value;
    if (done < TURN) continue;
    done = 0;
    await nextTurn();
  }
  return undefined;
}
