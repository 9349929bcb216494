/** What requests took, and what they would have taken had every layer waited for all its workers. */
import { Card } from './card.js';
import * as format from './format.js';
import { logTicks } from './ticks.js';
import type { Waits } from '../protocol.js';
import { useWidth } from './use-width.js';

const [TOP, HEIGHT, LOST_WIDTH] = [16, 124, 46];

export function HistogramCard({ waits }: { readonly waits: Waits | undefined }) {
  return (
    <Card id="histogram" title="First k, or all n">
      {waits === undefined || waits.looked === 0 ? (
        <p class="empty">Requests of the last minute appear here two seconds after their answers.</p>
      ) : (
        <>
          <Drawing waits={waits} />
          <Words waits={waits} />
        </>
      )}
    </Card>
  );
}

function Drawing({ waits }: { readonly waits: Waits }) {
  const [element, width] = useWidth<HTMLDivElement>(400);
  const { edgesMs, first, all, lost } = waits;
  const plot = width - LOST_WIDTH;
  const bar = plot / Math.max(1, first.length);
  const most = Math.max(1, ...first, ...all);
  const tall = (count: number) => (Math.min(count, most) / most) * (HEIGHT - TOP);
  const outline = all
    .map((count, index) => `${index === 0 ? 'M0 ' : 'V'}${HEIGHT - tall(count)}H${(index + 1) * bar}`)
    .join('');
  const ticks = logTicks(edgesMs[0]!, edgesMs.at(-1)!);
  const xOf = (ms: number) => (Math.log(ms / edgesMs[0]!) / Math.log(edgesMs.at(-1)! / edgesMs[0]!)) * plot;
  return (
    <div ref={element} class="drawing">
      <svg width={width} height={HEIGHT + 20} role="img" aria-label={inWords(waits)}>
        {first.map((count, index) => (
          <rect
            class="first"
            key={index}
            x={index * bar}
            y={HEIGHT - tall(count)}
            width={Math.max(1, bar - 1)}
            height={tall(count)}
          />
        ))}
        {all.length > 0 && <path class="all" d={`${outline}V${HEIGHT}`} />}
        <rect class="never" x={plot + 10} y={HEIGHT - tall(lost)} width={LOST_WIDTH - 16} height={tall(lost)} />
        {lost > 0 && (
          <text class="tick-name lost-text" x={plot + LOST_WIDTH / 2 + 2} y={HEIGHT - tall(lost) - 4}>
            {lost}
          </text>
        )}
        <path class="axis" d={`M0 ${HEIGHT}H${plot}M${plot + 8} ${HEIGHT}H${width}`} />
        {ticks.map(ms => (
          <text key={ms} class="tick-name" x={Math.max(8, xOf(ms))} y={HEIGHT + 15}>
            {ms} {ms === ticks[0] ? 'ms' : ''}
          </text>
        ))}
        <text class="tick-name" x={plot + LOST_WIDTH / 2} y={HEIGHT + 15}>
          never
        </text>
      </svg>
    </div>
  );
}

function Words({ waits }: { readonly waits: Waits }) {
  const { looked, bounds, lost, firstP50Ms, firstP99Ms, allP50Ms, allP99Ms } = waits;
  const orNever = (value: number | null) => (value === null && lost > 0 ? 'never' : format.ms(value));
  return (
    <>
      <table class="compare">
        <caption class="hidden">Latency of the last minute</caption>
        <thead>
          <tr>
            <td />
            <th scope="col">p50</th>
            <th scope="col">p99</th>
            <th scope="col">no answer</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">
              <i class="key first" /> for the first k, as answered
            </th>
            <td>{format.ms(firstP50Ms)}</td>
            <td>{format.ms(firstP99Ms)}</td>
            <td>0</td>
          </tr>
          <tr>
            <th scope="row">
              <i class="key all" /> for all n, at least
            </th>
            <td>{orNever(allP50Ms)}</td>
            <td>{orNever(allP99Ms)}</td>
            <td class={lost > 0 ? 'lost-text' : ''}>{lost}</td>
          </tr>
        </tbody>
      </table>
      <p class="note">
        The same {looked} requests of the last minute. What each layer would have waited for its last reply is added, as
        that reply told when it came after the answer, without the queue at its worker.{' '}
        {lost > 0 && `In ${lost} a worker had failed: to wait for it is to have no answer. `}
        {bounds > 0 &&
          `In ${bounds} a reply was cancelled before it ran and counts as no wait: they would have taken longer.`}
      </p>
    </>
  );
}

function inWords({ looked, firstP50Ms, firstP99Ms, allP50Ms, allP99Ms, lost }: Waits): string {
  return (
    `Histogram of ${looked} requests: median ${format.ms(firstP50Ms)} and 99th percentile ${format.ms(firstP99Ms)} as answered; ` +
    `${format.ms(allP50Ms)} and ${format.ms(allP99Ms)} had every layer waited for all workers, ${lost} without an answer.`
  );
}
