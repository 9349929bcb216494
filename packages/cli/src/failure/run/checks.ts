/**
 * Whether this machine can do what a config asks for: looked at before anything starts. What is impossible is refused by the name
 * of its cell.
 */
import { access } from 'node:fs/promises';
import { KofnError } from '@kofn/core';
import { MAX_LOCAL_WORKERS } from '../../workers/shared-options.js';
import { CpuQuota } from '../fleet/cgroup.js';
import type { Cell } from '../config/config.js';
import { shapeOf } from '../config/shape-of.js';
import { namespacesAvailable } from '../links/namespaces.js';
import { strategyOf, type Strategy } from './strategies.js';

/** The strategy of each cell, in their order. Throws INVALID_ARGUMENT or UNSUPPORTED with all that is in the way. */
export async function checkCells(cells: readonly Cell[], hosts: readonly string[] | undefined): Promise<Strategy[]> {
  const problems: string[] = [];
  const strategies: Strategy[] = [];
  for (const cell of cells) {
    try {
      strategies.push(strategyOf(cell));
      problems.push(
        ...(await problemsOf(cell, strategies.at(-1)!, hosts)).map(problem => `cell "${cell.name}": ${problem}`),
      );
    } catch (error) {
      problems.push(KofnError.from(error).message);
    }
  }
  if (problems.length === 0) return strategies;
  throw new KofnError('INVALID_ARGUMENT', [...new Set(problems)].join('; '));
}

async function problemsOf(cell: Cell, { n }: Strategy, hosts: readonly string[] | undefined): Promise<string[]> {
  const { device, fault, link, workload, equal } = cell;
  const problems: string[] = [];
  const most = hosts?.length ?? MAX_LOCAL_WORKERS;
  if (n > most)
    problems.push(`${cell.strategy} takes ${n} workers, there are ${most}${hosts ? ' of --workers' : ' at most'}`);
  if (fault.value.kind !== 'none' && fault.value.workers > n) {
    problems.push(`fault ${fault.name} meets ${fault.value.workers} workers at once, ${cell.strategy} has ${n}`);
  }
  if (equal === 'compute' && (typeof device === 'string' || !('gflops' in device))) {
    problems.push('equal compute takes a stated device (device: {gflops: …})');
  }
  if (typeof device === 'object' && 'cpuQuota' in device) {
    const why = hosts === undefined ? CpuQuota.available() : 'it is for local workers';
    if (why !== undefined) problems.push(`device cpuQuota is not possible: ${why}`);
  }
  if (hosts !== undefined && (fault.value.kind === 'restart' || fault.value.kind === 'partition')) {
    problems.push(
      `fault ${fault.name} (${fault.value.kind}) cannot be brought about on a real cluster; leave the cell out`,
    );
  }
  if (hosts === undefined && link.value.rateBy === 'tbf') {
    const why = await namespacesAvailable();
    if (why !== undefined) problems.push(`link ${link.name} is limited by tbf, which is not possible: ${why}`);
    if (link.value.megabitsPerSecond === undefined)
      problems.push(`link ${link.name}: rateBy tbf takes megabitsPerSecond`);
  }
  await shapeOf(link.value).catch((error: unknown) =>
    problems.push(`link ${link.name}: ${KofnError.from(error).message}`),
  );
  const { onnx } = workload.value;
  if (onnx !== undefined) {
    await access(onnx).catch(() => problems.push(`workload ${workload.name}: there is no file ${onnx}`));
  }
  return problems;
}
