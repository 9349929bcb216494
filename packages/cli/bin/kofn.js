#!/usr/bin/env node
import { main } from '../dist/src/main.js';

// Not process.exit: what is written to a pipe must arrive.
process.exitCode = await main(process.argv.slice(2));
