// What this repository's benchmarks and fault tests use beside the public API, as `kofn/measure`: nothing here is promised to stay.
export { compareOutputs, WRONG_ABOVE, type OutputError } from './compare.js';
export { loadDemoData, type DemoData } from './demo-data.js';
export { FaultControl } from './failure/fault-control.js';
export { Links } from './failure/links/links.js';
export type { LinkMode } from './failure/links/mode.js';
export { Link } from './failure/links/proxy.js';
export { isStopped, KillPlan, signalProcess, type KillOutcome } from './kill-plan.js';
export { HEAP, MALLOC } from './local-workers.js';
export { note, openProgress } from './progress.js';
export { Reference } from './reference.js';
export { formatBytes, formatMs } from './render.js';
export { largest, percentile, roundMs } from './stats.js';
export { toolOptions } from './tool-options.js';
export { untilFleet } from './until-fleet.js';
