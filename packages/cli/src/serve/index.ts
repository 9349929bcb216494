// Serving models from a program, as `kofn/serve`: what `kofn serve` is made of.
export {
  startServer,
  type AccessOptions,
  type BatchOptions,
  type EndedRequest,
  type InferAnswer,
  type InferCall,
  type InferenceServer,
  type LimitOptions,
  type LoadProgress,
  type ModelFile,
  type RunningServer,
  type ServedModel,
  type ServerOptions,
  type ServerView,
} from '@kofn/master/serve';
