/**
 * `npm run sim -- --scale`: fleets of growing size, each coded layer on ten workers of its own, through requests and faults, to
 * show what a request costs the processor: it must not grow with the fleet.
 *
 * Invariants
 * 1. At any moment at most PARITY workers of a layer have a fault or are not ready again after one: no request may be lost.
 * 2. All but the microseconds and `seconds` is a function of the seed.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { abortable, KofnError, openScope, sleep, systemClock, type Float32Tensor, type Signal } from '@kofn/core';
import { codedLayer, connect, type Cluster, type CodedLayer } from '@kofn/master';
import { NO_FRAME_FAULTS, Link } from './link.js';
import { MachineClock } from './machine-clock.js';
import { Machine, type MachineObserver } from './machine.js';
import { normal } from './models.js';
import { SimChannel } from './sim-channel.js';
import { SimEngine } from './sim-engine.js';
import { between, pick, streamsOf, type Streams } from './streams.js';
import { VirtualClock } from './virtual-clock.js';

/** As many requests to a layer in each, so that each layer's caches count alike. */
export const FLEETS: readonly { readonly workers: number; readonly requests: number }[] = [
  { workers: 10, requests: 1_000 },
  { workers: 100, requests: 10_000 },
  { workers: 1000, requests: 100_000 },
];
/** Before them, for the compiler. */
export const WARM_UP = { workers: 10, requests: 2_000 };

const WORKERS_OF_LAYER = 10;
const PARITY = 2;
const [FAN_IN, UNITS] = [24, 32];
/** Between two requests to one layer. */
const EVERY_MS = 20;
const LIMIT_MS = 1000 * 3_600_000;
const TOLERANCE = 1e-3;
const MIB = 2 ** 20;

export interface ScaleResult {
  readonly workers: number;
  readonly layers: number;
  readonly requests: number;
  readonly lost: number;
  readonly wrong: number;
  readonly kills: number;
  readonly pauses: number;
  /** Timers that fired and messages that arrived, those of the questions to all workers included. */
  readonly events: number;
  /** Processor time of a request in microseconds: master, workers, engines, network and the questions to all workers. */
  readonly cpuMicros: number;
  /** As much of it went into collecting garbage, which grows with what is alive at once: all workers live in this process. */
  readonly gcMicros: number;
  readonly seconds: number;
}

/** Undefined when `signal` aborted. Throws INTERNAL when the simulation hangs. */
export async function simulateFleet(
  seed: number,
  { workers, requests }: { workers: number; requests: number },
  { signal, onProgress = () => undefined }: { signal?: Signal; onProgress?: (done: number) => void } = {},
): Promise<ScaleResult | undefined> {
  const world = new VirtualClock();
  const running = new FleetRun(seed, world, workers, onProgress).run(requests);
  const ended = await world.runUntil(abortable(running, signal), LIMIT_MS).catch((error: unknown) => {
    if (signal?.aborted) return { value: undefined };
    throw error;
  });
  if (ended === undefined) throw new KofnError('INTERNAL', `a fleet of ${workers} workers hangs (seed ${seed})`);
  return ended.value;
}

interface Layer {
  readonly coded: CodedLayer;
  readonly holders: readonly number[];
  readonly weights: Float32Tensor;
}

class FleetRun {
  readonly #streams: Streams;
  readonly #world: VirtualClock;
  readonly #machines: readonly Machine[];
  readonly #clock: MachineClock;
  readonly #onProgress: (done: number) => void;
  #done = 0;
  #lost = 0;
  #wrong = 0;
  #kills = 0;
  #pauses = 0;

  constructor(seed: number, world: VirtualClock, workers: number, onProgress: (done: number) => void) {
    this.#streams = streamsOf(seed);
    this.#world = world;
    this.#clock = new MachineClock(world);
    this.#onProgress = onProgress;
    const observer: MachineObserver = {
      onMemory: () => undefined,
      onStart: () => undefined,
      onAway: () => undefined,
      onStuck: () => undefined,
      onUnanswered: () => undefined,
      onPut: () => undefined,
      onServer: () => undefined,
    };
    const limits = { memoryBytes: 64 * MIB, diskBytes: 64 * MIB, maxQueue: 64, macsPerMs: 1000 };
    this.#machines = Array.from({ length: workers }, (_, index) => {
      const link = new Link({ name: `worker ${index}`, clock: world, rng: this.#streams(`link ${index}`) });
      link.frames = { ...NO_FRAME_FAULTS };
      return new Machine({ index, link, limits, world, trace: { add: () => undefined }, observer });
    });
  }

  async run(requests: number): Promise<ScaleResult> {
    await Promise.all(this.#machines.map(machine => machine.start()));
    const cluster = await this.#connect();
    const layers: Layer[] = [];
    for (let first = 0; first < this.#machines.length; first += WORKERS_OF_LAYER) {
      layers.push(await this.#deploy(cluster, first));
    }
    const begun = { cpu: process.cpuUsage(), ms: systemClock.now(), events: this.#world.events };
    let gcMs = 0;
    const collections = new PerformanceObserver(list => {
      for (const { duration } of list.getEntries()) gcMs += duration;
    });
    collections.observe({ entryTypes: ['gc'] });
    using faults = openScope(this.#world);
    const struck = layers.flatMap((layer, number) =>
      Array.from({ length: PARITY }, (_, which) => this.#strike(cluster, layer, `${number} ${which}`, faults.signal)),
    );
    await Promise.all(layers.map((layer, number) => this.#ask(layer, number, requests / layers.length)));
    const { user, system } = process.cpuUsage(begun.cpu);
    const events = this.#world.events - begun.events;
    const seconds = (systemClock.now() - begun.ms) / 1000;
    collections.disconnect();
    faults.abort(new KofnError('CANCELLED', 'the requests are over'));
    await Promise.all(struck);
    await cluster.close();
    for (const machine of this.#machines) await machine.stop();
    return {
      workers: this.#machines.length,
      layers: layers.length,
      requests: this.#done,
      lost: this.#lost,
      wrong: this.#wrong,
      kills: this.#kills,
      pauses: this.#pauses,
      events,
      cpuMicros: (user + system) / this.#done,
      gcMicros: (1000 * gcMs) / this.#done,
      seconds,
    };
  }

  #connect(): Promise<Cluster> {
    const hosts = new Map(this.#machines.map(machine => [machine.address, machine]));
    return connect(
      { workers: [...hosts.keys()], id: 'scale', clock: this.#clock },
      {
        rng: this.#streams('reconnects'),
        engine: new SimEngine({ clock: this.#clock, speed: () => 1000 }),
        openChannel: (address, { maxMessageBytes, clock }) => {
          const host = hosts.get(address)!;
          const channel = new SimChannel({ address, host, clock, maxMessageBytes });
          host.onBreak = why => channel.break(why);
          return channel;
        },
      },
    );
  }

  async #deploy(cluster: Cluster, first: number): Promise<Layer> {
    const rng = this.#streams(`layer ${first}`);
    const weights = normal(rng, [UNITS, FAN_IN]);
    const holders = Array.from({ length: WORKERS_OF_LAYER }, (_, i) => first + i);
    const options = { cluster, parity: PARITY, workers: holders, name: `layer ${first}`, onLoss: 'fail' as const };
    return { coded: await codedLayer({ type: 'dense', weights }, options), holders, weights };
  }

  async #ask({ coded, weights }: Layer, number: number, requests: number): Promise<void> {
    const rng = this.#streams(`requests ${number}`);
    const running: Promise<void>[] = [];
    for (let request = 0; request < requests; request++) {
      await sleep(this.#world, between(rng, 0, 2 * EVERY_MS));
      running.push(this.#request(coded, weights, normal(rng, [1, FAN_IN])));
    }
    await Promise.all(running);
  }

  async #request(coded: CodedLayer, weights: Float32Tensor, input: Float32Tensor): Promise<void> {
    try {
      const { output } = await coded.run(input);
      if (!isProduct(output, weights, input)) this.#wrong++;
    } catch {
      this.#lost++;
    }
    this.#onProgress(++this.#done);
  }

  /** One fault after another on workers of `layer`, each over, and its worker ready again, before the next begins. */
  async #strike(cluster: Cluster, { holders }: Layer, name: string, signal: Signal): Promise<void> {
    const rng = this.#streams(`faults ${name}`);
    // Each of a layer's PARITY loops has workers of its own.
    const own = holders.filter((_, i) => i % PARITY === Number(name.split(' ')[1]));
    while (!signal.aborted) {
      await sleep(this.#world, between(rng, 0, 2_000), signal).catch(() => undefined);
      if (signal.aborted) return;
      const worker = pick(rng, own);
      const machine = this.#machines[worker]!;
      const ms = 10 ** between(rng, 1, 3.7);
      if (rng.integer(2) === 0) {
        this.#kills++;
        machine.crash({ keepDisk: true });
        await sleep(this.#world, ms);
        await machine.start();
      } else {
        this.#pauses++;
        machine.pause(ms);
        await sleep(this.#world, ms);
      }
      // By then a worker that was found silent just before it came back is connected to again.
      do await sleep(this.#world, 1_000);
      while (cluster.connections[worker]!.state.kind !== 'ready');
    }
  }
}

function isProduct({ data }: Float32Tensor, weights: Float32Tensor, input: Float32Tensor): boolean {
  for (let unit = 0; unit < UNITS; unit++) {
    let sum = 0;
    for (let i = 0; i < FAN_IN; i++) sum += weights.data[unit * FAN_IN + i]! * input.data[i]!;
    if (!(Math.abs(sum - data[unit]!) <= TOLERANCE)) return false;
  }
  return data.length === UNITS;
}
