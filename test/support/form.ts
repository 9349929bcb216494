/**
 * Long tests have a short form, which `npm test` runs, and the whole one, which the gate runs behind it (scripts/test.mjs). A test file
 * that imports this has both.
 */
import { it } from 'mocha';

export const isLong = process.env['KOFN_TEST_FORM'] === 'long';

type Test = (this: Mocha.Context) => void | Promise<void>;

/** A test that only the long form has. */
export const itWhenLong: (title: string, test: Test) => void = isLong ? it : () => undefined;
