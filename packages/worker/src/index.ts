// Running a worker.
export { workerCommand } from './main.js';
export { startWorker, type RunningWorker } from './start.js';
export { parseSize, type WorkerOptions } from './options.js';
export { createLogger, LOG_LEVELS, type Logger } from './process/logs.js';
export { endpointMetrics } from './monitoring/metrics-endpoint.js';
// Putting one behind another transport or on another store.
export { WorkerServer, type WorkerParts } from './server/server.js';
export { BLOB_FILES, type BlobDraft, type BlobFile, type BlobStore, type StoredBlob } from './store/blob-store.js';
export { FsBlobStore } from './store/fs-blob-store.js';
export type { HeldShard } from './store/shard-store.js';
export type { ExecutorCounters } from './inference/executor.js';
