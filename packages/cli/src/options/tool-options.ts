/**
 * The options of this repository's own tools, benchmarks and fault tests, as `parse` gives them. With --help prints `help` and
 * exits with 0; when `parse` throws, says why and exits with 2.
 */
export function toolOptions<V extends { readonly help?: boolean | undefined }>(help: string, parse: () => V): V {
  const values = parsed(parse);
  if (values.help !== true) return values;
  process.stdout.write(help);
  return process.exit(0);
}

function parsed<V>(parse: () => V): V {
  try {
    return parse();
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}; --help shows the options`);
    return process.exit(2);
  }
}
