// Serving models to clients: `kofn serve`, or a program of its own.
export { startServer, type RunningServer, type ServerOptions } from './start.js';
export type { LoadProgress, ModelFile } from './inference/repository.js';
export type { EndedRequest, ServedModel, ServerView } from './inference/served.js';
// What is watched: the page, metrics, and a log line for each change of the fleet.
export { registerPage, type FaultButtons, type PageOptions } from './page/index.js';
export { registerMetrics, serverMetrics } from './metrics.js';
export { logFleet, type FleetLogger } from './logs.js';
// For those who put it behind other transports, or add routes.
export { InferenceServer, type InferAnswer, type InferCall, type LimitOptions } from './inference/server.js';
export { ModelRepository } from './inference/repository.js';
export { sendError } from './http/http.js';
export { type AccessOptions } from './http/access.js';
export { type BatchOptions } from './inference/batcher.js';
