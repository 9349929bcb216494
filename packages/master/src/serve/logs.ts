/** What a server logs of its fleet: one line a change, none a request. */
import type { FastifyBaseLogger } from 'fastify';
import type { ClusterEvent, EventKind } from '../fleet/events.js';
import type { ServerView } from './inference/served.js';

export type FleetLogger = Pick<FastifyBaseLogger, 'info' | 'warn' | 'error'>;

/** warn: margin is gone or may go. error: somebody has to look. All else is news. */
const LEVELS: Partial<Record<EventKind, 'warn' | 'error'>> = {
  lost: 'warn',
  duplicate: 'warn',
  straggler: 'warn',
  failed: 'warn',
  reduced: 'error',
  'audit-failed': 'error',
  quarantined: 'error',
};

/** Logs each event of the cluster, those that it still has from before first. Returns what ends that. */
export function logFleet({ cluster }: Pick<ServerView, 'cluster'>, logger: FleetLogger): () => void {
  const log = ({ kind, message, atMs: _atMs, ...about }: ClusterEvent) =>
    logger[LEVELS[kind] ?? 'info']({ event: kind, ...about }, message);
  cluster.events.forEach(log);
  return cluster.onEvent(log);
}
