/** What a config may name without saying it: faults, links, workloads. */
import {
  faultFields,
  linkFields,
  workloadFields,
  type Fault,
  type LinkConfig,
  type Workload,
} from './config-schema.js';
import { WIFI, WIRED } from '../links/shape.js';
import type { z } from 'zod';

const fault = (fields: z.input<typeof faultFields>): Fault => faultFields.parse(fields);
const workload = (fields: z.input<typeof workloadFields>): Workload => workloadFields.parse(fields);

export const FAULTS: Readonly<Record<string, Fault>> = {
  none: fault({ kind: 'none' }),
  kill: fault({ kind: 'kill' }),
  'kill-between': fault({ kind: 'kill', when: 'between' }),
  'kill-two': fault({ kind: 'kill', workers: 2 }),
  pause: fault({ kind: 'pause' }),
  restart: fault({ kind: 'restart' }),
  slow: fault({ kind: 'slow' }),
  stalls: fault({ kind: 'stalls', rate: 0.02 }),
  loss: fault({ kind: 'loss', rate: 0.02 }),
  partition: fault({ kind: 'partition' }),
  corrupt: fault({ kind: 'corrupt', rate: 0.05 }),
};

export const LINKS: Readonly<Record<string, LinkConfig>> = {
  loopback: linkFields.parse({}),
  wired: linkFields.parse(WIRED),
  wifi: linkFields.parse(WIFI),
};

export const WORKLOADS: Readonly<Record<string, Workload>> = {
  'fc-2000': workload({ fc: [2000, 2000] }),
  'fashion-cnn': workload({ network: 'fashion-cnn' }),
  alexnet: workload({ network: 'alexnet', inputs: 2 }),
  vgg16: workload({ network: 'vgg16', inputs: 2 }),
};
