/** The process of the links: carries out the orders of links.ts, one at a time, and answers each. */
import { KofnError, type ErrorCode } from '@kofn/core';
import { Airs } from './air.js';
import { FineClock } from './fine-clock.js';
import type { LinkMode } from './mode.js';
import { Link } from './proxy.js';
import type { LinkShape } from './shape.js';
import type { LinkTarget } from './target.js';

export type Order =
  | {
      readonly kind: 'open';
      readonly targets: readonly LinkTarget[];
      readonly shape: LinkShape | undefined;
      readonly seed: number | undefined;
    }
  | { readonly kind: 'set'; readonly link: number; readonly mode: LinkMode }
  | { readonly kind: 'shape'; readonly links: readonly number[]; readonly shape: LinkShape; readonly seed: number }
  | { readonly kind: 'aim'; readonly link: number; readonly target: LinkTarget }
  | { readonly kind: 'counters' };

export type Answer = { readonly value: unknown } | { readonly code: ErrorCode; readonly message: string };

const links: Link[] = [];
const clock = new FineClock();
const airs = new Airs(clock);

/** Ports after `open`, counters after `counters`. */
async function carryOut(order: Order): Promise<unknown> {
  switch (order.kind) {
    case 'open': {
      const { shape, seed } = order;
      for (const target of order.targets)
        links.push(await Link.open(target, { shape, seed, airs, clock, station: links.length }));
      return links.map(({ port }) => port);
    }
    case 'set':
      links[order.link]!.mode = order.mode;
      return undefined;
    case 'shape':
      for (const link of order.links) links[link]!.shape(order.shape, order.seed);
      return undefined;
    case 'aim':
      links[order.link]!.target = order.target;
      return undefined;
    case 'counters':
      return links.map(({ counters }) => counters);
  }
}

process.on('message', (order: Order) => {
  const answer = (answer: Answer) => process.send!(answer);
  carryOut(order).then(
    value => answer({ value }),
    error => answer({ code: KofnError.from(error).code, message: KofnError.from(error).message }),
  );
});
process.on('disconnect', () => process.exit());
// Ctrl-C, and a terminal that closes, go to all processes: what uses the links ends them when it has finished.
for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
