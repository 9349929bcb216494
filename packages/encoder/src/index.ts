// What users of a code need first.
export { CODE_NAMES, type Code, type CodeName, type Quorum } from './code.js';
export { createCode, defaultCode } from './codes/create-code.js';
export { encodeLayer, type EncodedBlock, type LayerEncoding, type LinearMap } from './encode.js';
export { ProgressiveDecoder, type Decoded } from './progressive-decoder.js';
export { verifyBlock } from './verify.js';
export { agrees, deviation, fingerprint, type Expectation, type Fingerprint } from './fingerprint.js';
export { Expectations, inputEnergies, type Reads, type Window, type Work } from './expectation.js';
export { misfit, parityChecks, unitEnergies, type CheckedLayer, type UnitEnergies } from './parity-check.js';
// What extenders and tests need.
export { exactTolerance, ROTATION_FIGURES } from './exactness.js';
export { DecodePlans, missingBlocks, type DecodePlan } from './decode-plan.js';
export { blockLength, blockRange, partition, type Partition } from './partition.js';
