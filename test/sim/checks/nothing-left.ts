/**
 * After the cluster is closed and the workers have stopped, nothing is pending and no timer is set; a model that was closed
 * has left no shard on a worker that was always sound.
 */
import type { Owner } from '@kofn/wire';
import type { MachineClock } from '../machine-clock.js';
import type { Machine } from '../machine.js';
import type { SimChannel } from '../sim-channel.js';
import type { SimEngine } from '../sim-engine.js';
import type { Violation } from './request.js';

export function checkMaster(parts: {
  clock: MachineClock;
  engine: SimEngine;
  channels: readonly SimChannel[];
}): Violation[] {
  const { clock, engine, channels } = parts;
  const calls = channels.reduce((sum, { openCalls }) => sum + openCalls, 0);
  return [
    ...(clock.armed > 0 ? [`the master left ${clock.armed} timers`] : []),
    ...(engine.openSessions > 0 ? [`the master left ${engine.openSessions} sessions open`] : []),
    ...(calls > 0 ? [`the master left ${calls} calls open`] : []),
  ];
}

/** `owner` is the model's; what a master claimed that has died is gone with its lease (homes.ts). */
export function checkGivenUp(sound: readonly Machine[], owner: Owner): Violation[] {
  return sound.flatMap(machine => {
    const { length } = machine.claimedBy(owner);
    return length === 0 ? [] : [`${machine.name} still holds ${length} shards of the model that was closed`];
  });
}
