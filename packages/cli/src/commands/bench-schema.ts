/** `kofn bench schema`: what a config may have, and what a result has, as JSON Schema. */
import { z } from 'zod';
import { EXIT_OK } from '../terminal/exit.js';
import { configSchema } from '../failure/config/config-schema.js';
import { runResult } from '../failure/result/result.js';

/** Fields and what they mean, of a config or of a `result.json`. */
export function benchSchema(of: 'config' | 'result'): Promise<number> {
  const schema = z.toJSONSchema(of === 'config' ? configSchema : runResult, { io: 'input' });
  process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
  return Promise.resolve(EXIT_OK);
}
