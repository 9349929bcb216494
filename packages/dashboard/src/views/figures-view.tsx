/** What a glance takes in: how many, how fast, and whether anything had to be recovered. */
import * as format from './format.js';
import type { Figures, Load } from '../protocol.js';

export function FiguresRow({ figures, load }: { readonly figures: Figures | undefined; readonly load: Load }) {
  const { perSecond = [], ratePerSecond = 0, failed = 0, recovered = { lost: 0, late: 0 } } = figures ?? {};
  return (
    <dl class="figures" aria-label="Requests of the last minute">
      <Figure name="requests / s" value={ratePerSecond.toFixed(1)} about={<Spark values={perSecond} />} />
      <Figure name="p50" value={format.ms(figures?.p50Ms ?? null)} />
      <Figure name="p99" value={format.ms(figures?.p99Ms ?? null)} />
      <Figure name="under way" value={String(load.running)} about={`${load.queued} wait`} />
      <Figure
        name="recovered late"
        value={format.big(recovered.late)}
        about="blocks / min"
        kind={recovered.late > 0 ? 'late-text' : ''}
      />
      <Figure
        name="recovered lost"
        value={format.big(recovered.lost)}
        about="blocks / min"
        kind={recovered.lost > 0 ? 'lost-text' : ''}
      />
      <Figure name="failed" value={format.big(failed)} about="in a minute" kind={failed > 0 ? 'bad' : ''} />
    </dl>
  );
}

interface FigureProps {
  readonly name: string;
  readonly value: string;
  readonly about?: preact.ComponentChildren;
  readonly kind?: string;
}

function Figure({ name, value, about, kind = '' }: FigureProps) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class={kind}>{value}</dd>
      {about !== undefined && <dd class="about">{about}</dd>}
    </div>
  );
}

function Spark({ values }: { readonly values: readonly number[] }) {
  const most = Math.max(1, ...values);
  return (
    <svg class="spark" width="60" height="14" aria-hidden="true">
      {values.map((value, index) => (
        <rect key={index} x={index} y={14 - (14 * value) / most} width="1" height={(14 * value) / most} />
      ))}
    </svg>
  );
}
