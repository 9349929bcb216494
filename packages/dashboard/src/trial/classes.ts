/** What a classifier's output says. */

export interface ClassScore {
  readonly index: number;
  readonly label: string;
  /** From 0 to 1. */
  readonly score: number;
}

export interface Classes {
  /** The likeliest first. */
  readonly top: readonly ClassScore[];
  /** Scores are the softmax of the output, which was not one of probabilities. */
  readonly isSoftmax: boolean;
}

const TOLERANCE = 1e-3;

/** Undefined for an output without values. `values` are those of one picture. */
export function classesIn(values: readonly number[], labels: readonly string[] | null, most = 5): Classes | undefined {
  if (values.length === 0) return undefined;
  const sum = values.reduce((all, value) => all + value, 0);
  const isSoftmax = Math.abs(sum - 1) > TOLERANCE || values.some(value => value < 0);
  const scores = isSoftmax ? softmax(values) : values;
  const top = scores
    .map((score, index) => ({ index, label: labels?.[index] ?? `class ${index}`, score }))
    .sort((a, b) => b.score - a.score)
    .slice(0, most);
  return { top, isSoftmax };
}

/** The output that has one value a label; without labels the first. */
export function classOutput<T extends { readonly values: readonly number[] }>(
  outputs: readonly T[],
  labels: readonly string[] | null,
): T | undefined {
  return outputs.find(({ values }) => values.length === labels?.length) ?? outputs[0];
}

function softmax(values: readonly number[]): number[] {
  const largest = Math.max(...values);
  const powers = values.map(value => Math.exp(value - largest));
  const sum = powers.reduce((all, power) => all + power, 0);
  return powers.map(power => power / sum);
}
