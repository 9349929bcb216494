/** All benchmarks, in the order in which they run. */
import type { Bench } from './bench.js';
import { decode } from './decode.js';
import { encode } from './encode.js';
import { heal } from './heal.js';
import { layer } from './layer.js';
import { memory } from './memory.js';
import { model } from './model.js';
import { page } from './page.js';
import { pipeline } from './pipeline.js';
import { verify } from './verify.js';
import { smallCalls } from './small-calls.js';
import { bulk } from './transport/bulk.js';
import { far } from './transport/far.js';
import { gather } from './transport/gather.js';

export const BENCHES: readonly Bench[] = [
  gather,
  far,
  bulk,
  decode,
  encode,
  layer,
  model,
  smallCalls,
  pipeline,
  verify,
  heal,
  page,
  memory,
];
