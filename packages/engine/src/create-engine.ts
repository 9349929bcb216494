/** From the name of an engine to the engine. */
import { KofnError } from '@kofn/core';
import { ENGINE_NAMES, type Engine, type EngineName } from './engine.js';
import { startThread } from './thread-engine.js';

/**
 * Starts an engine in a thread of its own. 'auto' is native where it loads, else wasm. Throws INVALID_ARGUMENT (no such
 * engine) or ENGINE (it does not load here).
 */
export async function createEngine(name: EngineName | 'auto' = 'auto'): Promise<Engine> {
  if (name === 'auto') {
    try {
      return await startThread('native');
    } catch {
      return await startThread('wasm');
    }
  }
  if (!ENGINE_NAMES.includes(name)) {
    throw new KofnError('INVALID_ARGUMENT', `engine: "${String(name)}" is not one of auto, ${ENGINE_NAMES.join(', ')}`);
  }
  return startThread(name);
}
