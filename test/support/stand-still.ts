/** Lets the event loop stand still, as a long garbage collection or a careless caller would. */
export function standStill(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}
