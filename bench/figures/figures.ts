/** All figures, in the order of README.md. */
import { fileURLToPath } from 'node:url';
import { arrivals } from './arrivals.js';
import { cost } from './cost.js';
import { death } from './death.js';
import type { Figure } from './figure.js';
import { splits } from './splits.js';
import { stragglers } from './stragglers.js';

export const FIGURES: readonly Figure[] = [arrivals, death, stragglers, cost, splits];

/** A file of bench/figures, in the checkout and not in dist. */
export function figureFile(name: string): string {
  return fileURLToPath(new URL(`../../figures/${name}`, import.meta.url));
}
