/** Logs as JSON, one object a line. */
import { KofnError } from '@kofn/core';
import { pino, type DestinationStream, type Logger } from 'pino';

export type { Logger };

export const LOG_LEVELS = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;

/** Whatever is logged under these names is a secret. */
const SECRET = ['token', 'authorization'];

/** Logs to `destination` what is of `level` or above, with the time in ISO 8601. Throws INVALID_ARGUMENT (no such level). */
export function createLogger(name: string, level: string, destination: DestinationStream = process.stderr): Logger {
  if (!LOG_LEVELS.some(known => known === level)) {
    throw new KofnError('INVALID_ARGUMENT', `--log-level ${level}: must be one of ${LOG_LEVELS.join(', ')}`);
  }
  return pino(
    {
      name,
      level,
      formatters: { level: label => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: SECRET.flatMap(secret => [secret, `*.${secret}`, `*.*.${secret}`]),
    },
    destination,
  );
}
