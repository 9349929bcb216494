/** The subcommand `serve`: its options from config-schema.ts, and those that all commands share. */
import type { OnLoss } from '@kofn/master';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { decimal, names, oneOf, parseShape, whole } from '../options/arguments.js';
import { serve, type ServeArguments } from './serve.js';
import { addClusterOptions, addCodeOptions, addJsonOption } from '../workers/shared-options.js';
import { readServeConfig, settle, variableOf } from './config.js';
import { serveConfigSchema, serverFields } from './config-schema.js';
import { parseLabels, parseModel } from './models.js';

const VALUES: Readonly<Record<keyof typeof serverFields, string>> = {
  grpc: '<host:port>',
  http: '<host:port>',
  deadline: '<ms>',
  maxQueue: '<n>',
  maxRunning: '<n>',
  maxBatch: '<rows>',
  maxDelay: '<ms>',
  maxMessage: '<size>',
  maxConnections: '<n>',
  clientTimeout: '<ms>',
  tokenFile: '<file>',
  tlsCert: '<file>',
  tlsKey: '<file>',
  allowFaults: '',
  logLevel: '<level>',
  insecure: '',
};

const EXAMPLES = `
MODEL is FILE, NAME=FILE or NAME:VERSION=FILE. Each option may also stand in the environment (--max-queue as KOFN_MAX_QUEUE) and in the
--config file (as maxQueue); flags come before the environment, and that before the file. KOFN_MODELS: as MODEL, with commas.

Examples:
  $ kofn serve models/fashion-cnn.onnx --local 5
  $ kofn serve fashion=fashion.onnx resnet:2=resnet50-v2.onnx --workers pi1,pi2,pi3 --parity 1
  $ kofn serve --config serve.yaml --print-config
  $ kofn serve model.onnx --local 5 --http 0.0.0.0:8443 --grpc off --token-file token --tls-cert cert.pem --tls-key key.pem
  $ curl localhost:8000/v2/models/fashion

SIGTERM ends it when what it has taken is answered, with exit code 0. docs/serving.md has every route, option and error.`;

/** `done` is told the exit code; errors are thrown. */
export function serveCommand(about: { readonly version: string }, done: (exitCode: number) => void): Command {
  const command = new Command('serve')
    .description('Serve models to clients: Open Inference Protocol over gRPC and HTTP.')
    .argument('[model...]', 'what to serve');
  addCodeOptions(addClusterOptions(command), 'all')
    .option('--id <name>', serveConfigSchema.shape.id.unwrap().description)
    .option(
      '--on-loss <policy>',
      'fewer than k workers left: compute here (local), have others compute (resend), or fail',
      oneOf<OnLoss>('--on-loss', ['local', 'resend', 'fail']),
      'local',
    )
    .option(
      '--shape <input=sizes>',
      'plan with an input so large, image=1,3,224,224, where sizes but the first are open; repeat for more',
      parseShape,
    )
    .option(
      '--labels <[name=]file>',
      'class names of a model, one a line, for requests with classification and for the page; repeat for more',
      parseLabels,
    );
  for (const [key, schema] of Object.entries(serverFields)) {
    const flag = `--${key.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)}`;
    const option = new Option(`${flag} ${VALUES[key as keyof typeof serverFields]}`, schema.description);
    command.addOption(option.isBoolean() ? option : option.argParser(parserOf(flag, schema)));
  }
  command
    .option('--config <file>', 'a YAML file with any of this')
    .option('--print-config', 'print as YAML what it comes to, and end')
    .option('--schema', 'print as JSON Schema what a config may have, and end');
  addJsonOption(command)
    .addHelpText('after', EXAMPLES)
    .action(async (models: readonly string[]) => {
      const { schema, config: file } = command.opts<{ schema?: boolean; config?: string }>();
      if (schema === true) {
        process.stdout.write(`${JSON.stringify(z.toJSONSchema(serveConfigSchema, { io: 'input' }), null, 2)}\n`);
        return done(0);
      }
      const config = file === undefined ? {} : await readServeConfig(file);
      settle(command, config, process.env);
      const fromEnv = process.env[variableOf('models')];
      const given = models.length > 0 ? models : fromEnv ? names(variableOf('models'))(fromEnv) : undefined;
      const args = { ...command.opts<ServeArguments>(), models: given?.map(parseModel) ?? config.models ?? [] };
      done(await serve(args, about));
    });
  return command;
}

/** As the parsers of arguments.ts: a message names the option, what was given and what is allowed. */
function parserOf(flag: string, schema: z.ZodType): (text: string) => unknown {
  if (!(schema instanceof z.ZodNumber)) return text => text;
  const { minValue, maxValue, isInt } = schema;
  return (isInt ? whole : decimal)(flag, minValue!, maxValue!);
}
