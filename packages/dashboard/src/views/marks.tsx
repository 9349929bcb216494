/** How what became of a block is drawn: by shape and by colour, so that either is enough. */
import type { MarkKind } from '../state/lanes.js';

interface MarkProps {
  readonly kind: MarkKind;
  readonly isParity: boolean;
  readonly x: number;
  readonly y: number;
  readonly size: number;
}

/** Data blocks are round, parity is a diamond; a cross is a worker that failed. */
export function MarkShape({ kind, isParity, x, y, size }: MarkProps) {
  const name = `mark ${kind}`;
  if (kind === 'lost' || kind === 'failed') {
    const d = `M${x - size} ${y - size}l${2 * size} ${2 * size}M${x + size} ${y - size}l${-2 * size} ${2 * size}`;
    return <path class={name} d={d} />;
  }
  if (isParity) {
    const s = size * 1.25;
    return <path class={name} d={`M${x} ${y - s}l${s} ${s}l${-s} ${s}l${-s} ${-s}z`} />;
  }
  return <circle class={name} cx={x} cy={y} r={size} />;
}

export const MARK_WORDS: Readonly<Record<MarkKind, string>> = {
  used: 'answered in time',
  late: 'late: recovered from parity, its call cancelled',
  lost: 'failed: recovered from parity',
  failed: 'failed, and was not needed',
  spare: 'cancelled, and was not needed',
};

export function Legend() {
  const entries: [MarkKind, boolean, string][] = [
    ['used', false, 'data block'],
    ['used', true, 'parity block'],
    ['late', false, 'recovered: late'],
    ['lost', false, 'recovered: lost'],
    ['spare', true, 'cancelled, not needed'],
  ];
  return (
    <ul class="legend">
      {entries.map(([kind, isParity, words]) => (
        <li key={words}>
          <svg width="14" height="14" aria-hidden="true">
            <MarkShape kind={kind} isParity={isParity} x={7} y={7} size={4} />
          </svg>
          {words}
        </li>
      ))}
      <li>
        <svg width="14" height="14" aria-hidden="true">
          <path class="ready" d="M7 0v14" />
        </svg>
        answer ready
      </li>
    </ul>
  );
}
