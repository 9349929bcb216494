/**
 * Keeps a thread from being ended while it is inside native code. onnxruntime-node throws from C++ when its thread is
 * stopped during a call, and that aborts the whole process (`terminate called after throwing an instance of
 * 'Napi::Error'`), whether `terminate()` stops it or the process's own exit.
 *
 * Neighbours: thread.ts passes the gate before every call of the runtime; thread-engine.ts shuts it.
 *
 * Invariants
 * 1. Once the gate is shut and the thread is outside, the thread never enters native code again: each side writes its
 *    own cell before it reads the other's.
 * 2. A process that exits waits for the calls that run natively, as Node would for the thread, and for nothing else.
 */
const INSIDE = 0;
const SHUT = 1;

/** Longer than any call of sense; a thread that died inside must not hold the process. */
const EXIT_WAIT_MS = 30_000;

/** Shared by an engine and its thread. */
export type Gate = Int32Array<SharedArrayBuffer>;

export function createGate(): Gate {
  return new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
}

/** Goes in, or says false when the gate is shut. Whoever went in leaves. */
export function enter(gate: Gate): boolean {
  Atomics.store(gate, INSIDE, 1);
  if (Atomics.load(gate, SHUT) === 0) return true;
  leave(gate);
  return false;
}

export function leave(gate: Gate): void {
  Atomics.store(gate, INSIDE, 0);
  Atomics.notify(gate, INSIDE);
}

/** Lets nobody in any more; who is inside stays until done. */
export function shut(gate: Gate): void {
  Atomics.store(gate, SHUT, 1);
}

const guarded = new Set<Gate>();

/** Makes the exit of this process wait until nobody is inside, until the result is called. */
export function guardExit(gate: Gate): () => void {
  if (guarded.size === 0) process.on('exit', waitForAll);
  guarded.add(gate);
  return () => {
    guarded.delete(gate);
    if (guarded.size === 0) process.off('exit', waitForAll);
  };
}

function waitForAll(): void {
  for (const gate of guarded) shut(gate);
  for (const gate of guarded) Atomics.wait(gate, INSIDE, 1, EXIT_WAIT_MS);
}
