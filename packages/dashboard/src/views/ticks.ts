/** 1, 2 and 5 times powers of ten from `from` to `to`; powers alone where those would be too many. */
export function logTicks(from: number, to: number, most = 7): number[] {
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = powersIn(from, to, factors);
    if (ticks.length <= most && ticks.length > 0) return ticks;
  }
  return [Number(from.toPrecision(2))];
}

function powersIn(from: number, to: number, factors: readonly number[]): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(1));
      if (tick >= from && tick <= to) ticks.push(tick);
    }
  }
  return ticks;
}
