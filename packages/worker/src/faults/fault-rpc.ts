/** kofn.v1.FaultControl: refused, unless this worker was started with --allow-faults. */
import { KofnError } from '@kofn/core';
import {
  actionFrom,
  actionMessage,
  codecs,
  METHODS,
  settingsFrom,
  settingsMessage,
  type ServiceHandlers,
} from '@kofn/wire';
import type { Faults } from './faults.js';

type Method = (faults: Faults, request: Uint8Array) => Uint8Array;

const NOTHING = codecs.empty.encode({});

const set: Method = (faults, request) => {
  faults.set(settingsFrom(codecs.faultSettings.decode(request)));
  return NOTHING;
};

const act: Method = (faults, request) => {
  faults.act(actionFrom(codecs.faultAction.decode(request)));
  return NOTHING;
};

const status: Method = faults => {
  const { busyMs, stalledMs, cpuMs, rssBytes, settings, armed, ...counts } = faults.status();
  return codecs.faultStatus.encode({
    ...counts,
    busy_ms: busyMs,
    stalled_ms: stalledMs,
    cpu_ms: cpuMs,
    rss_bytes: rssBytes,
    settings: settingsMessage(settings),
    armed: armed ? actionMessage(armed) : null,
  });
};

/** Without `faults` every method throws PERMISSION_DENIED. */
export function faultHandlers(faults: Faults | undefined): ServiceHandlers['unary'] {
  const handler = (method: Method) => async (request: Uint8Array) => {
    if (faults !== undefined) return Promise.resolve(method(faults, request));
    const advice = 'start the worker with --allow-faults if you mean to break it';
    throw new KofnError('PERMISSION_DENIED', `this worker lets nobody bring faults upon it; ${advice}`);
  };
  return new Map([
    [METHODS.setFaults, handler(set)],
    [METHODS.act, handler(act)],
    [METHODS.faultStatus, handler(status)],
  ]);
}
