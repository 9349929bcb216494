/** Figures as the page shows them: three digits, or a dash for what is not known. */

const NOT_KNOWN = '–';

export function ms(value: number | null): string {
  if (value === null) return NOT_KNOWN;
  if (value >= 1_000) return `${(value / 1000).toFixed(value >= 10_000 ? 1 : 2)} s`;
  return `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)} ms`;
}

/** With a unit's prefix: 1.23 M. */
export function big(value: number | null, unit = ''): string {
  if (value === null) return NOT_KNOWN;
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, Math.abs(value))) / 3)));
  const scaled = value / 1000 ** power;
  const digits = power === 0 && Number.isInteger(value) ? 0 : scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${['', 'k', 'M', 'G', 'T'][power]!}${unit}`.trim();
}

export function part(value: number | null): string {
  return value === null ? NOT_KNOWN : `${Math.round(100 * value)} %`;
}

export function times(value: number | null): string {
  return value === null ? NOT_KNOWN : `${value.toFixed(1)} ×`;
}

export function ago(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}
