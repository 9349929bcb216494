/**
 * The command `kofn`. What a command does is in commands/, loaded only when it runs, so that --help answers at once.
 *
 * Invariants
 * 1. Exit codes: 0 done, 1 the run failed or lost or changed an answer, 2 wrong usage or bad input, 128 + n after signal n.
 * 2. With --json stdout holds one JSON object, an error too ({"error": {code, message}}); everything else goes to stderr.
 * 3. A command that ends, however it ends, leaves no process and no temporary file behind.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { KofnError } from '@kofn/core';
import type { OnLoss } from '@kofn/master';
import picocolors from 'picocolors';
import { addresses, decimal, kill, names, oneOf, whole } from './options/arguments.js';
import type { BenchFailureArguments } from './commands/bench-failure.js';
import type { CompareArguments } from './commands/bench-compare.js';
import type { DemoArguments } from './commands/demo.js';
import type { FleetArguments } from './commands/fleet.js';
import type { ReplanArguments } from './commands/replan.js';
import type { RunArguments } from './commands/run.js';
import { describeError, EXIT_FAILED, EXIT_OK, EXIT_USAGE, exitCodeOf } from './terminal/exit.js';
import { Interrupt } from './terminal/interrupt.js';
import {
  addClusterOptions,
  addCodeOptions,
  addEngineOptions,
  addInputOptions,
  addJsonOption,
  type SharedArguments,
} from './workers/shared-options.js';

/** Runs the command line (without node and script) and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  // A reader that closes the pipe early (`kofn plan … | head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
  let exitCode = EXIT_OK;
  /** Runs a command under Ctrl-C. */
  const running = async (work: (signal: AbortSignal) => Promise<number>): Promise<void> => {
    using interrupt = new Interrupt();
    try {
      exitCode = await work(interrupt.signal);
    } catch (error) {
      if (interrupt.exitCode === undefined) throw error;
    }
    exitCode = interrupt.exitCode ?? exitCode;
  };
  const program = await createProgram(args, running, code => (exitCode = code));
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
    report(error, args);
    return exitCodeOf(error) || EXIT_FAILED;
  }
}

/** Told the exit code. */
type Done = (exitCode: number) => void;
type Running = (work: (signal: AbortSignal) => Promise<number>) => Promise<void>;

async function createProgram(args: readonly string[], running: Running, done: Done): Promise<Command> {
  const program = new Command('kofn')
    .description('Exact DNN inference from any k of n unreliable machines.')
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, `kofn${nameOf(args)}: `)) })
    .showHelpAfterError('(add --help for the options and examples)');
  addDemo(program, running);
  await addWorker(program, args);
  await addServe(program, args, done);
  addPlan(program, running);
  addRun(program, running);
  addReplan(program, running);
  addFleet(program, running);
  addBench(program, running, args);
  return program.addHelpText(
    'after',
    `${examples('kofn demo', 'kofn plan model.onnx', 'kofn bench failure --config quick')}\nEach command has its own --help.`,
  );
}

function addDemo(program: Command, running: Running): void {
  const command = program
    .command('demo')
    .description(
      'A trained network on five local workers, one of them killed while it holds a request; then without coding.',
    )
    .option('--requests <n>', 'images to classify', whole('--requests', 3, 500), 500);
  addJsonOption(command)
    .addHelpText('after', examples('kofn demo', 'kofn demo --requests 60 --json'))
    .action((options: DemoArguments) =>
      running(async signal => (await import('./commands/demo.js')).demo(options, signal)),
    );
}

/** The worker's package makes its command; it is loaded only when asked for. It has its own way with signals. */
async function addWorker(program: Command, args: readonly string[]): Promise<void> {
  if (args[0] === 'worker' || (args[0] === 'help' && args[1] === 'worker')) {
    const { workerCommand } = await import('@kofn/worker');
    program.addCommand(workerCommand());
  } else {
    program.command('worker').description('One machine of the cluster: keeps shards and runs them.');
  }
}

/** As a worker, it has its own way with signals; what it may be told is in a schema that is loaded only then. */
async function addServe(program: Command, args: readonly string[], done: Done): Promise<void> {
  if (args[0] === 'serve' || (args[0] === 'help' && args[1] === 'serve')) {
    const { serveCommand } = await import('./serve/command.js');
    program.addCommand(serveCommand({ version: version() }, done).copyInheritedSettings(program));
  } else {
    program.command('serve').description('Serve models to clients: Open Inference Protocol over gRPC and HTTP.');
  }
}

function addPlan(program: Command, running: Running): void {
  const command = program
    .command('plan <model>')
    .description('What would be coded and why, with the times of both ways. Deploys nothing.');
  addJsonOption(addInputOptions(addCodeOptions(addClusterOptions(command), 'auto')))
    .addHelpText(
      'after',
      '\nWithout --workers or --local the plan is for 5 workers at assumed speeds.' +
        examples(
          'kofn plan model.onnx',
          'kofn plan model.onnx --local 5 --parity 2 --layers all',
          'kofn plan model.onnx --workers pi1,pi2,pi3 --json',
        ),
    )
    .action((model: string, options: SharedArguments) =>
      running(async signal => (await import('./commands/plan.js')).plan(model, options, signal)),
    );
}

function addRun(program: Command, running: Running): void {
  const command = program.command('run <model>').description('Run a model on workers, coded.');
  addInputOptions(addCodeOptions(addClusterOptions(command), 'all'))
    .option(
      '--requests <n>',
      'requests, one after the other; with --random each has its own seed',
      whole('--requests', 1, 1e7),
      1,
    )
    .option('--deadline <ms>', 'longest time of a request (default: 60000)', decimal('--deadline', 1, 2 ** 31 - 1))
    .option(
      '--on-loss <policy>',
      'fewer than k workers left: compute here (local), have others compute (resend), or fail',
      oneOf<OnLoss>('--on-loss', ['local', 'resend', 'fail']),
      'local',
    )
    .option('--id <name>', 'who claims the shards: the same name finds its model again (default: a random one)')
    .option('--compare', 'compare each answer with the uncoded model in ONNX Runtime, and ONNX Runtime with itself')
    .option(
      '--atol <n>',
      'with --compare: right is |answer - expected| <= atol + rtol * |expected|',
      decimal('--atol', 0, 1e38),
    )
    .option('--rtol <n>', 'the same (default: by what ONNX Runtime differs from itself)', decimal('--rtol', 0, 1e38))
    .option('--output <dir>', 'write each output to DIR/NAME.npy (NAME.REQUEST.npy for several requests)')
    .option('--kill <i@n>', 'kill local worker I while it holds request N, both from 0; repeat for more', kill);
  addJsonOption(command)
    .addHelpText(
      'after',
      examples(
        'kofn run model.onnx --local 5 --random 1 --compare',
        'kofn run model.onnx --local 5 --random 1 --requests 20 --kill 2@7 --compare --json',
        'kofn run model.onnx --workers pi1,pi2,pi3 --input image=boot.png --output answers',
      ) + '\nExit code: 0 all answered and exact, 1 an answer lost or wrong or a kill that missed, 2 bad input.',
    )
    .action((model: string, options: RunArguments) =>
      running(async signal => (await import('./commands/run.js')).run(model, options, signal)),
    );
}

function addReplan(program: Command, running: Running): void {
  const command = program
    .command('replan <model>')
    .description(
      'Puts a plan for these workers in the place of the one that a program left on them and that no master runs now.',
    )
    .requiredOption(
      '--workers <addresses>',
      'all that are to be planned for, as HOST:PORT,HOST:PORT,…',
      addresses('--workers'),
    );
  addInputOptions(addCodeOptions(addEngineOptions(command), 'all'))
    .option('--id <name>', 'whose model it is, the id of connect or kofn run (default: the one that is there)')
    .option('--name <name>', "the model's name (default: that of its file)")
    .option('--dry-run', 'show what would be sent and whether there is room, and change nothing')
    .option('--keep-old', 'leave the old plan until its leases end: a master that runs by it keeps its shards');
  addJsonOption(command)
    .addHelpText(
      'after',
      '\nGive the options that your program deploys with: what stands does not tell them.' +
        '\nA master that runs replans by itself, without a restart: cluster.replan().' +
        examples(
          'kofn replan model.onnx --workers pi1,pi2,pi3,pi4,pi5 --dry-run',
          'kofn replan model.onnx --workers pi1,pi2,pi3 --id shop --parity 1 --json',
        ) +
        '\nExit code: 0 the new plan stands (or could, with --dry-run), 1 it does not and the old one does, 2 bad input.',
    )
    .action((model: string, options: ReplanArguments) =>
      running(async signal => (await import('./commands/replan.js')).replan(model, options, signal)),
    );
}

function addFleet(program: Command, running: Running): void {
  const command = program
    .command('fleet')
    .description('What workers say of themselves: state, room, shards and whose they are. Changes nothing.')
    .requiredOption('--workers <addresses>', 'HOST:PORT,HOST:PORT,…', addresses('--workers'))
    .option('--deadline <ms>', 'longest wait for a worker', decimal('--deadline', 1, 2 ** 31 - 1), 5_000);
  addJsonOption(command)
    .addHelpText(
      'after',
      examples('kofn fleet --workers pi1,pi2,pi3', 'kofn fleet --workers pi1,pi2 --json') +
        '\nExit code: 0 all answered, 1 a worker did not or is listed under two names, 2 bad input.',
    )
    .action((options: FleetArguments) =>
      running(async signal => (await import('./commands/fleet.js')).fleet(options, signal)),
    );
}

function addBench(program: Command, running: Running, args: readonly string[]): void {
  const bench = program.command('bench').description('Measure what failures cost, and compare measurements.');
  const failure = bench
    .command('failure')
    .description(
      'Ways of splitting a model over machines, under faults: latency, losses, bytes and compute, at equal cost.',
    )
    .requiredOption(
      '--config <file>',
      'what to measure: a YAML file, or one that comes with kofn: quick, full, kill, tail',
    )
    .option('--output <dir>', 'where result.json, report.html and report.md go (default: kofn-bench/NAME)')
    .option(
      '--workers <addresses>',
      'a real cluster: HOST:PORT,… of workers started with --allow-faults',
      addresses('--workers'),
    )
    .option('--cells <names>', 'only these: cells by name, or by what their names begin with', names('--cells'))
    .option('--requests <n>', 'requests of each cell, in place of what the config says', whole('--requests', 1, 1e6))
    .option('--seed <n>', 'other faults, inputs and weights', whole('--seed', 0, 2 ** 32 - 1))
    .option('--list', 'print the cells and run nothing');
  addJsonOption(failure)
    .addHelpText(
      'after',
      examples(
        'kofn bench failure --config quick',
        'kofn bench failure --config full --cells kill,wifi --output /tmp/kill',
        'kofn bench failure --config mine.yaml --workers pi1,pi2,pi3 --json',
      ) +
        '\nExit code: 0 measured, 1 an answer was wrong, 2 bad input. docs/benchmarks.md says what a config may have.',
    )
    .action((options: BenchFailureArguments) =>
      running(async signal => {
        const { benchFailure } = await import('./commands/bench-failure.js');
        return benchFailure(options, { command: `kofn ${args.join(' ')}`, version: version() }, signal);
      }),
    );
  bench
    .command('schema')
    .description('Every field of a config, or of a result, with what it means: JSON Schema.')
    .argument('<of>', 'config or result', oneOf('schema', ['config', 'result'] as const))
    .addHelpText('after', examples('kofn bench schema config', 'kofn bench schema result'))
    .action((of: 'config' | 'result') =>
      running(async () => (await import('./commands/bench-schema.js')).benchSchema(of)),
    );
  const compare = bench
    .command('compare <before> <after>')
    .description('What changed beyond noise between two runs: latency, lost and wrong answers, time and bytes.');
  addJsonOption(compare)
    .addHelpText(
      'after',
      '\nA run is its result.json, its report.html, or the folder of both; cells are matched by name.' +
        examples(
          'kofn bench compare before/result.json after/result.json',
          'kofn bench compare before/report.html after --json',
        ) +
        '\nExit code: 0 nothing got worse, 1 something did, 2 bad input.',
    )
    .action((before: string, after: string, options: CompareArguments) =>
      running(async () => (await import('./commands/bench-compare.js')).benchCompare(before, after, options)),
    );
}

function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map(line => `  $ ${line}`).join('\n')}\n`;
}

/** One clear line on stderr, and with --json the error as the object on stdout. */
function report(error: unknown, args: readonly string[]): void {
  const debug = process.env['KOFN_DEBUG'] === '1';
  const red = picocolors.createColors(process.stderr.isTTY === true && picocolors.isColorSupported).red;
  process.stderr.write(`${red(`kofn${nameOf(args)}:`)} ${describeError(error, debug)}\n`);
  if (!args.includes('--json')) return;
  const { code, message } = KofnError.from(error);
  process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
}

/** " run" for `kofn run …`; nothing when the first word is no command. */
function nameOf(args: readonly string[]): string {
  const first = args[0] ?? '';
  return ['demo', 'worker', 'serve', 'plan', 'run', 'replan', 'fleet', 'bench'].includes(first) ? ` ${first}` : '';
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
