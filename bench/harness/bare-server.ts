/**
 * What the transport costs by itself: one bidirectional stream of raw buffers, each message answered with one of `replyBytes`.
 * A child of a benchmark.
 */
import { listenBare } from './bare-listen.js';
import { parentData, serveParent } from './child.js';

export interface BareServerData {
  readonly replyBytes: number;
}

export interface BareServerReady {
  readonly address: string;
}

const { replyBytes } = parentData<BareServerData>();
const reply = Buffer.alloc(replyBytes);
const address = await listenBare(call => void call.write(reply));
serveParent({ address } satisfies BareServerReady, () => process.cpuUsage());
