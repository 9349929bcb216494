#!/usr/bin/env -S MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072 node --initial-heap-size=64
// The first line is docs/adr/0002-memory.md (glibc gives what is freed back to the system) and 0004-heap.md (tensors are not taken for
// garbage of the heap).
import { main } from '../dist/src/main.js';

// Not process.exit: what is written to a pipe must arrive.
process.exitCode = await main(process.argv.slice(2));
