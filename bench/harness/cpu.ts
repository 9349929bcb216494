/** Processor time of this process, all of its threads together: the engine's and the garbage collector's too. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
