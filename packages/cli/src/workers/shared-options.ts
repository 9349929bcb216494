/** Options that several commands have: how each is parsed, and the words that --help says about it. */
import type { Command } from 'commander';
import { CODE_NAMES, type CodeName } from '@kofn/encoder';
import { ENGINE_NAMES, type EngineName } from '@kofn/engine';
import type { SegmentChoice, VerifyChoice } from '@kofn/master';
import { DEFAULT_WORKER_PORT } from '@kofn/wire/address';
import {
  addresses,
  decimal,
  hedge,
  inputFile,
  layerChoice,
  numbers,
  oneOf,
  parseShape,
  whole,
  type InputFile,
  type Shapes,
} from '../options/arguments.js';
import type { ClusterArguments, CodeArguments } from './session.js';

const ENGINES = ['auto', ...ENGINE_NAMES] as const satisfies readonly (EngineName | 'auto')[];
const LAYOUTS = ['nchw', 'nhwc'] as const;
const SEGMENTS = ['local', 'replicated'] as const satisfies readonly SegmentChoice[];
const VERIFY = ['none', 'fingerprint', 'audit'] as const satisfies readonly VerifyChoice[];
export const MAX_LOCAL_WORKERS = 64;

export interface InputArguments {
  readonly input?: readonly InputFile[];
  readonly random?: number;
  readonly shape?: Shapes;
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly layout: (typeof LAYOUTS)[number];
  readonly scale?: number;
  readonly checkFinite?: boolean;
}

export interface SharedArguments extends ClusterArguments, CodeArguments, InputArguments {
  readonly json?: boolean;
}

export function addClusterOptions(command: Command): Command {
  command
    .option(
      '--workers <addresses>',
      `workers that run already, as HOST:PORT,HOST:PORT,…; without a port ${DEFAULT_WORKER_PORT}`,
      addresses('--workers'),
    )
    .option(
      '--local <n>',
      'start N workers on this machine and stop them afterwards',
      whole('--local', 1, MAX_LOCAL_WORKERS),
    );
  return addEngineOptions(command);
}

export function addEngineOptions(command: Command): Command {
  return command
    .option(
      '--engine <name>',
      `engine of master and local workers: ${ENGINES.join(', ')}`,
      oneOf('--engine', ENGINES),
      'auto',
    )
    .option('--threads <n>', 'threads of each engine', whole('--threads', 1, 1024), 1);
}

export function addCodeOptions(command: Command, layers: 'all' | 'auto'): Command {
  return command
    .option('--parity <r>', 'parity blocks: so many workers may fail (default: 1)', whole('--parity', 0, 1024))
    .option(
      '--code <name>',
      `${CODE_NAMES.join(', ')} (default: uncoded for parity 0, sum for 1, else rotation)`,
      oneOf<CodeName>('--code', CODE_NAMES),
    )
    .option(
      '--layers <which>',
      'all that can be coded; auto: those that pay; or their names: a,b,c',
      layerChoice,
      layers,
    )
    .option(
      '--hedge <ms|p95>',
      'ask a second worker for blocks later than so many ms, or than 95% of the last replies (default: never)',
      hedge,
    )
    .option(
      '--segments <who>',
      'what is not coded runs on the master (local), or on two workers at once (replicated)',
      oneOf('--segments', SEGMENTS),
      'local',
    )
    .option(
      '--verify <how>',
      'whether what workers compute is checked: none, each reply before it is used (fingerprint), or behind the answer (audit)',
      oneOf('--verify', VERIFY),
      'none',
    );
}

export function addInputOptions(command: Command): Command {
  return command
    .option(
      '--input <name=file>',
      'an input: .npy, ONNX TensorProto .pb, or a picture (PNG, JPEG, WebP, AVIF, TIFF, GIF); repeat for more',
      inputFile,
    )
    .option('--random <seed>', 'draw the inputs that no file gives', whole('--random', 0, 2 ** 52))
    .option(
      '--shape <input=sizes>',
      'what an input has where the model leaves sizes open, such as image=1,3,480,640; repeat for more (default: 1 each)',
      parseShape,
    )
    .option(
      '--mean <m>',
      'pictures: (pixel * scale - mean) / std; one number, or one for each channel',
      numbers('--mean'),
    )
    .option('--std <s>', 'pictures: see --mean', numbers('--std'))
    .option('--scale <s>', 'pictures: see --mean (default: 1/255)', decimal('--scale', -1e9, 1e9))
    .option('--layout <order>', 'pictures: axes of the input, nchw or nhwc', oneOf('--layout', LAYOUTS), 'nchw')
    .option('--check-finite', 'refuse inputs with NaN or infinities');
}

export function addJsonOption(command: Command): Command {
  return command.option('--json', 'print one JSON object on stdout, everything else on stderr');
}
