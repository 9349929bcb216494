/** What of a cell is emulated, and how, in a sentence each: it stands in every result. */
import { availableParallelism } from 'node:os';
import type { LinkConfig } from '../config/config-schema.js';
import type { Cell } from '../config/config.js';
import type { Strategy } from './strategies.js';

export function emulatedIn(cell: Cell, { speed }: Strategy, hosts: readonly string[]): string[] {
  const isLocal = hosts.length === 0;
  const cores = availableParallelism();
  return [
    ...(isLocal
      ? [`Workers are processes of one machine and share its ${cores} cores with the master.`, linkText(cell)]
      : []),
    ...deviceText(cell, speed),
    ...faultText(cell, isLocal),
  ];
}

export function deviceName({ device }: Pick<Cell, 'device'>, speed = 1): string {
  if (device === 'native') return 'native';
  if ('cpuQuota' in device) return `${figure(device.cpuQuota)} of a core`;
  const overhead = device.overheadMs > 0 ? ` + ${device.overheadMs} ms` : '';
  return `${figure(device.gflops * speed)} Gflop/s${overhead}${device.arithmetic ? '' : ', no arithmetic'}`;
}

function deviceText(cell: Cell, speed: number): string[] {
  const { device } = cell;
  if (device === 'native') return [];
  if ('cpuQuota' in device)
    return [`A device is ${figure(device.cpuQuota)} of a core of this machine, by a cgroup's CPU quota.`];
  const rule = `A device of ${deviceName(cell, speed)}: a run takes 2 x its multiply-adds over that at least, the rest is waited out.`;
  const memory = 'Its engine computes each input once and then answers from memory.';
  return device.arithmetic ? [rule] : [rule, memory];
}

function linkText({ link }: Cell): string {
  const { value } = link;
  const parts = shapeParts(value);
  const proxy = 'through a TCP proxy in user space, seeded, which adds 0.1 to 0.5 ms and is up to 1 ms late';
  const what = parts.length === 0 ? 'no delay of its own' : parts.join(', ');
  const tbf = value.rateBy === 'tbf' ? `; the rate by the kernel, tbf in network namespaces` : '';
  return `Link ${link.name}: ${what}; ${proxy}${tbf}.`;
}

function shapeParts(link: LinkConfig): string[] {
  const { delayMs, jitter, megabitsPerSecond, sharedMegabitsPerSecond, stalls, loss, trace } = link;
  return [
    ...(sharedMegabitsPerSecond === undefined
      ? []
      : [`${sharedMegabitsPerSecond} Mbit/s that all share in both directions`]),
    ...(megabitsPerSecond === undefined ? [] : [`${megabitsPerSecond} Mbit/s each way for each`]),
    ...(delayMs === undefined ? [] : [`${delayMs} ms each way`]),
    ...(jitter === undefined
      ? []
      : [`and a lognormal(${jitter.mu}, ${jitter.sigma}) ms for each frame of at most 64 KiB`]),
    ...(stalls === undefined
      ? []
      : [
          `${figure(stalls.rate * 100)} % of frames stall ${stalls.minMs} to ${stalls.maxMs} ms, the next of that station with probability ${stalls.burst}`,
        ]),
    ...(loss === undefined ? [] : [`${figure(loss.rate * 100)} % of frames come after a timeout of ${loss.rtoMs} ms`]),
    ...(trace === undefined ? [] : [`a recorded trace`]),
  ];
}

function faultText({ fault }: Cell, isLocal: boolean): string[] {
  const { kind, when, rtoMs, factor } = fault.value;
  const byCall = 'by a call to the worker (--allow-faults)';
  switch (kind) {
    case 'none':
      return [];
    case 'kill':
    case 'pause': {
      const signal = kind === 'kill' ? 'SIGKILL' : 'SIGSTOP';
      const held = isLocal ? 'it is stopped before its frame is written' : 'when the next request arrives there';
      return [
        `Fault ${fault.name}: ${isLocal ? signal : `${signal} ${byCall}`}, ${when === 'between' ? 'between two requests' : `while it holds the request (${held})`}.`,
      ];
    }
    case 'restart':
      return [`Fault ${fault.name}: SIGTERM, and a new process on the same disk.`];
    case 'slow':
      return [`Fault ${fault.name}: runs take ${factor} times as long, waited out or by CPU quota.`];
    case 'stalls':
      return [
        `Fault ${fault.name}: ${isLocal ? 'the link of a worker holds everything back' : `a worker stands still before it runs, ${byCall}`}.`,
      ];
    case 'loss':
      return [
        isLocal
          ? `Fault ${fault.name}: a lost frame is held back for a retransmission timeout of ${rtoMs} ms, which is what a TCP connection sees.`
          : `Fault ${fault.name}: the reply is never sent, ${byCall}.`,
      ];
    case 'partition':
      return [`Fault ${fault.name}: the link passes requests and no reply.`];
    case 'corrupt':
      return [`Fault ${fault.name}: one bit of a reply is flipped ${isLocal ? 'on the link' : byCall}.`];
  }
}

function figure(value: number): string {
  return String(Math.round(value * 1000) / 1000);
}
