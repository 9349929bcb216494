/** Emulated links (rate-link.ts) to `targets`, one each, all alike. A child of a benchmark; a question is answered once they are idle. */
import { sleep, systemClock } from '@kofn/core';
import { parentData, serveParent } from './child.js';
import { RateLink, type LinkOptions } from './rate-link.js';

export interface LinksData extends Omit<LinkOptions, 'target'> {
  /** Addresses on loopback. */
  readonly targets: readonly string[];
}

export interface LinksReady {
  /** In the order of the targets. */
  readonly addresses: readonly string[];
}

const { targets, ...options } = parentData<LinksData>();
const links = await Promise.all(
  targets.map(target => RateLink.open({ ...options, target: Number(target.split(':')[1]) })),
);
const addresses = links.map(({ port }) => `127.0.0.1:${port}`);
serveParent({ addresses } satisfies LinksReady, async () => {
  while (!links.every(({ isIdle }) => isIdle)) await sleep(systemClock, 1);
});
