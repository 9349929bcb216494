#!/usr/bin/env node
import { runWorkerCommand } from '../dist/src/main.js';

await runWorkerCommand(process.argv);
