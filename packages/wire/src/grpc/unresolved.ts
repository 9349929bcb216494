/** Names that DNS does not know. */
import { lookup } from 'node:dns/promises';

/** Says that `host` cannot be resolved, in the system's own words; undefined when it can. */
export async function unresolved(host: string): Promise<string | undefined> {
  try {
    await lookup(host);
    return undefined;
  } catch (error) {
    return `the name ${host} cannot be resolved: ${(error as Error).message}`;
  }
}
