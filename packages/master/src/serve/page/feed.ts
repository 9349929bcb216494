/**
 * What the page is told: a state, and from then on what changes. register.ts gives it to browsers.
 *
 * Invariants
 * 1. At most MESSAGES_PER_SECOND messages are made, however many requests there are, and each once for all readers.
 * 2. Without a reader no message is made and no timer runs, some time after the last has gone: until then one that lost its connection
 *    can go on where it was.
 * 3. A request costs microseconds, and what is held is bounded.
 */
import { randomBytes } from 'node:crypto';
import type { Timer } from '@kofn/core';
import type { Figures, HealthLine, Load, ModelLine, PagePatch, PageState, WorkerLine } from '@kofn/dashboard';
import type { ClusterEvent } from '../../fleet/events.js';
import type { EndedRequest, ServerView } from '../inference/served.js';
import { healthLine, modelLine, workerLine } from './lines.js';
import { MessageRing, type Message } from './message-ring.js';
import { ModelFigures } from './model-figures.js';
import type { MessageSource } from './readers.js';
import { Samples } from './samples.js';

export const MESSAGES_PER_SECOND = 10;
/** Figures, and speeds of a small fleet; each worker beyond adds as much as it costs. */
const FIGURES_MS = 1_000;
const SPEED_MS = 20;
const LINGER_MS = 30_000;
const KEPT_MESSAGES = 300;
const KEPT_EVENTS = 50;

export type Reader = (message: Message) => void;

export class Feed implements MessageSource, Disposable {
  readonly #view: ServerView;
  readonly #faults: boolean;
  readonly #ring = new MessageRing(randomBytes(6).toString('hex'), KEPT_MESSAGES);
  readonly #readers = new Set<Reader>();
  readonly #samples: Samples;
  /** By the model's name and version. */
  readonly #figures = new Map<string, ModelFigures>();
  readonly #stops: readonly (() => void)[];
  #timer: Timer | undefined;
  #quietAtMs = 0;
  #figuresAtMs = 0;
  #speedsAtMs = 0;
  /** What has been told, to be compared with. */
  #workers: string[] = [];
  #models: readonly (readonly unknown[])[] = [];
  #health = '';
  #load = '';
  #request = -1;
  #news: ClusterEvent[] = [];
  #hasFleetChanged = false;

  constructor(view: ServerView, { faults }: { faults: boolean }) {
    const { cluster } = view;
    this.#view = view;
    this.#faults = faults;
    this.#samples = new Samples(cluster.clock);
    this.#stops = [
      view.onEnded(request => this.#ended(request)),
      cluster.onFleetChange(() => (this.#hasFleetChanged = true)),
      cluster.onEvent(event => {
        this.#news.push(event);
        if (this.#news.length > KEPT_EVENTS) this.#news.shift();
      }),
    ];
  }

  /** All of it, as of now. */
  state(): PageState {
    return {
      atMs: this.#now,
      faults: this.#faults,
      workers: this.#view.cluster.workers.map(workerLine),
      models: this.#modelLines(),
      health: this.#healthLines(),
      figures: this.#figureLines(),
      load: this.#loadLine(),
      requests: this.#samples.since(-1),
      events: this.#view.cluster.events.slice(-KEPT_EVENTS).map(eventLine),
    };
  }

  /**
   * Calls `read` with each message until the result is called. Returns what it has to be told first: what it missed since `lastId`, or
   * where that is not known the state.
   */
  read(read: Reader, lastId: string | undefined): { missed: Message[] | undefined; state: Message; stop: () => void } {
    const missed = lastId === undefined || !this.#isRunning ? undefined : this.#ring.after(lastId);
    this.#readers.add(read);
    if (!this.#isRunning) this.#start();
    const state = { id: this.#ring.lastId, data: missed === undefined ? JSON.stringify(this.state()) : '' };
    const stop = () => {
      this.#readers.delete(read);
      this.#quietAtMs = this.#now;
    };
    return { missed, state, stop };
  }

  [Symbol.dispose](): void {
    for (const stop of this.#stops) stop();
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#readers.clear();
  }

  get #isRunning(): boolean {
    return this.#timer !== undefined;
  }

  get #now(): number {
    return this.#view.cluster.clock.now();
  }

  #ended(request: EndedRequest): void {
    this.#samples.ended(request);
    this.#figuresOf(keyOf(request.model, request.version))?.ended(request);
  }

  /** Undefined for a model that is not served: clients name models as they like. Figures of those that are served no more go. */
  #figuresOf(key: string): ModelFigures | undefined {
    const known = this.#figures.get(key);
    if (known !== undefined) return known;
    const served = new Set(this.#view.models().map(({ name, version }) => keyOf(name, version)));
    if (!served.has(key)) return undefined;
    for (const other of this.#figures.keys()) if (!served.has(other)) this.#figures.delete(other);
    const made = new ModelFigures(this.#view.cluster.clock);
    this.#figures.set(key, made);
    return made;
  }

  #start(): void {
    this.#patch(); // what is new is in the state that a reader gets
    this.#timer = this.#next();
  }

  #next(): Timer {
    return this.#view.cluster.clock.setTimer(() => this.#tick(), 1000 / MESSAGES_PER_SECOND, { background: true });
  }

  #tick(): void {
    if (this.#readers.size === 0 && this.#now - this.#quietAtMs > LINGER_MS) return void (this.#timer = undefined);
    this.#timer = this.#next();
    const patch = this.#patch();
    if (Object.keys(patch).length === 0) return;
    const message = this.#ring.add(JSON.stringify({ atMs: this.#now, ...patch }));
    for (const read of [...this.#readers]) read(message);
  }

  /** What has changed since the last. */
  #patch(): PagePatch {
    const hasFleetChanged = this.#hasFleetChanged;
    this.#hasFleetChanged = false;
    const isTime = this.#now - this.#figuresAtMs >= FIGURES_MS;
    if (isTime) this.#figuresAtMs = this.#now;
    const requests = this.#samples.since(this.#request);
    this.#request = requests.at(-1)?.number ?? this.#request;
    const events = this.#news.splice(0).map(eventLine);
    return {
      ...(hasFleetChanged || this.#isTimeForSpeeds() ? this.#changedWorkers() : {}),
      ...(hasFleetChanged || events.length > 0 || isTime ? { ...this.#changedModels(), ...this.#changedHealth() } : {}),
      ...(isTime ? { figures: this.#figureLines(), ...this.#changedLoad() } : {}),
      ...(requests.length > 0 ? { requests } : {}),
      ...(events.length > 0 ? { events } : {}),
    };
  }

  #isTimeForSpeeds(): boolean {
    const everyMs = Math.max(FIGURES_MS, this.#workers.length * SPEED_MS);
    if (this.#now - this.#speedsAtMs < everyMs) return false;
    this.#speedsAtMs = this.#now;
    return true;
  }

  #changedWorkers(): PagePatch {
    const workers: WorkerLine[] = [];
    for (const view of this.#view.cluster.workers) {
      const line = workerLine(view);
      const text = JSON.stringify(line);
      if (this.#workers[view.index] !== text) workers.push(line);
      this.#workers[view.index] = text;
    }
    return workers.length === 0 ? {} : { workers };
  }

  #changedModels(): PagePatch {
    const models = this.#view
      .models()
      .map(({ name, version, labels, model }) => [name, version, labels, model, model.plan]);
    const isSame =
      models.length === this.#models.length &&
      models.every((parts, index) => parts.every((part, at) => part === this.#models[index]![at]));
    this.#models = models;
    return isSame ? {} : { models: this.#modelLines() };
  }

  #changedHealth(): PagePatch {
    const health = this.#healthLines();
    const text = JSON.stringify(health);
    if (text === this.#health) return {};
    this.#health = text;
    return { health };
  }

  #changedLoad(): PagePatch {
    const load = this.#loadLine();
    const text = JSON.stringify(load);
    if (text === this.#load) return {};
    this.#load = text;
    return { load };
  }

  #modelLines(): ModelLine[] {
    return this.#view.models().map(modelLine);
  }

  #healthLines(): HealthLine[] {
    return this.#view.models().map(healthLine);
  }

  #loadLine(): Load {
    const { queued, running } = this.#view.load();
    return { queued, running };
  }

  #figureLines(): Figures[] {
    return this.#view.models().flatMap(({ name, version }) => {
      const figures = this.#figures.get(keyOf(name, version));
      return figures === undefined ? [] : [{ model: name, version, ...figures.figures() }];
    });
  }
}

function keyOf(model: string, version: string): string {
  return `${version} ${model}`;
}

function eventLine({ atMs, kind, message }: ClusterEvent): { atMs: number; kind: string; message: string } {
  return { atMs, kind, message };
}
