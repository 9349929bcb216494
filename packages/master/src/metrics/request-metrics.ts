/**
 * What requests and their layers took, from the report of each. Only the histograms are prom-client's own work, a microsecond each; all
 * else is added to plain numbers and read by a scrape.
 *
 * Invariant: no more models and layers are counted than stand on the cluster; a model that is closed is forgotten at the next scrape.
 */
import type { ErrorCode } from '@kofn/core';
import { counterOf, type Sample } from '@kofn/wire/metrics';
import { Histogram, type Registry } from 'prom-client';
import type { LayerReport, RequestEnd } from '../contract/report.js';
import type { Spans } from '../contract/spans.js';

const DURATIONS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const DECODE_DURATIONS = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];
/** 1 is no solving at all; what exactness allows stands in docs/math.md. */
const ERROR_GAINS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000];

/** What a request may end with; counted from 0, so that the first of each is an increase. */
export const REQUEST_CODES: readonly ('OK' | ErrorCode)[] = [
  'OK',
  'DEADLINE_EXCEEDED',
  'NOT_ENOUGH_WORKERS',
  'RESOURCE_EXHAUSTED',
  'UNAVAILABLE',
  'CANCELLED',
  'ENGINE',
];

const LAYER = ['model', 'layer'] as const;

interface ModelTally {
  /** Ended requests by code. */
  readonly codes: Map<string, number>;
  /** Seconds of answered ones. */
  readonly spans: Map<keyof Spans, number>;
  readonly layers: Map<string, LayerTally>;
}

interface LayerTally {
  sentBytes: number;
  receivedBytes: number;
  lost: number;
  late: number;
  computedHere: number;
  resent: number;
  hedged: number;
}

export class RequestMetrics {
  readonly #models = new Map<string, ModelTally>();
  readonly #standing: () => ReadonlySet<string>;
  readonly #requestSeconds: Histogram;
  readonly #layerSeconds: Histogram;
  readonly #decodeSeconds: Histogram;
  readonly #errorGain: Histogram;

  /** `standing` are the names of the models that stand on the cluster. */
  constructor(registry: Registry, standing: () => ReadonlySet<string>) {
    this.#standing = standing;
    const registers = [registry];
    counterOf(registry, {
      name: 'kofn_requests_total',
      help: 'Requests that have ended, by code: OK, or that of their error',
      labelNames: ['model', 'code'],
      read: () => {
        this.#forgetOthers(); // the first that a scrape reads
        return this.#ofModels((model, { codes }) => [...codes].map(([code, count]) => [{ model, code }, count]));
      },
    });
    this.#requestSeconds = new Histogram({
      name: 'kofn_request_duration_seconds',
      help: 'Time of answered requests on the cluster',
      labelNames: ['model'],
      buckets: DURATIONS,
      registers,
    });
    counterOf(registry, {
      name: 'kofn_request_span_seconds_total',
      help: 'Where the time of answered requests went, along their critical path',
      labelNames: ['model', 'span'],
      read: () => this.#ofModels((model, { spans }) => [...spans].map(([span, seconds]) => [{ model, span }, seconds])),
    });
    this.#layerSeconds = new Histogram({
      name: 'kofn_layer_duration_seconds',
      help: 'Time of a coded layer, from its dispatch to the decoded output',
      labelNames: LAYER,
      buckets: DURATIONS,
      registers,
    });
    this.#decodeSeconds = new Histogram({
      name: 'kofn_layer_decode_duration_seconds',
      help: 'Time from the arrival that completed the decode set to the output, a systematic grace included',
      labelNames: LAYER,
      buckets: DECODE_DURATIONS,
      registers,
    });
    this.#errorGain = new Histogram({
      name: 'kofn_layer_error_gain',
      help: 'How much the decode multiplied float rounding; 1 when nothing was solved for',
      labelNames: LAYER,
      buckets: ERROR_GAINS,
      registers,
    });
    this.#layerCounter(registry, {
      name: 'kofn_layer_recovered_blocks_total',
      help: 'Data blocks computed from parity, by kind: their worker had failed (lost), or had not answered yet (late)',
      by: 'kind',
      of: ({ lost, late }) => ({ lost, late }),
    });
    this.#layerCounter(registry, {
      name: 'kofn_layer_substituted_blocks_total',
      help: 'Blocks that another than their worker was asked for: the master (local), others for lost (resent) or late ones (hedged)',
      by: 'kind',
      of: ({ computedHere, resent, hedged }) => ({ local: computedHere, resent, hedged }),
    });
    this.#layerCounter(registry, {
      name: 'kofn_layer_bytes_total',
      help: 'Bytes to workers and back; layers that share their input count with the first of them',
      by: 'direction',
      of: ({ sentBytes, receivedBytes }) => ({ sent: sentBytes, received: receivedBytes }),
    });
  }

  ended(end: RequestEnd): void {
    const { model } = end;
    const tally = this.#tallyOf(model);
    const code = 'code' in end ? end.code : 'OK';
    tally.codes.set(code, (tally.codes.get(code) ?? 0) + 1);
    if ('code' in end) return;
    const { ms, spans, layers } = end.report;
    this.#requestSeconds.observe({ model }, ms / 1000);
    for (const span in spans) {
      const of = span as keyof Spans;
      tally.spans.set(of, (tally.spans.get(of) ?? 0) + spans[of] / 1000);
    }
    for (const layer of layers) this.#layerEnded(model, layer, tally);
  }

  #layerEnded(model: string, report: LayerReport, { layers }: ModelTally): void {
    const { name: layer, recovered, computedHere, resent, hedged } = report;
    const labels = { model, layer };
    this.#layerSeconds.observe(labels, report.ms / 1000);
    this.#decodeSeconds.observe(labels, report.spans.decode / 1000);
    this.#errorGain.observe(labels, report.errorGain);
    let tally = layers.get(layer);
    if (tally === undefined) {
      tally = { sentBytes: 0, receivedBytes: 0, lost: 0, late: 0, computedHere: 0, resent: 0, hedged: 0 };
      layers.set(layer, tally);
    }
    tally.sentBytes += report.bytesSent;
    tally.receivedBytes += report.bytesReceived;
    tally.lost += recovered.lost.length;
    tally.late += recovered.late.length;
    tally.computedHere += computedHere.length;
    tally.resent += resent.length;
    tally.hedged += hedged.length;
  }

  #tallyOf(model: string): ModelTally {
    let tally = this.#models.get(model);
    if (tally === undefined) {
      tally = { codes: new Map(REQUEST_CODES.map(code => [code, 0])), spans: new Map(), layers: new Map() };
      this.#models.set(model, tally);
    }
    return tally;
  }

  #layerCounter(
    registry: Registry,
    metric: { name: string; help: string; by: string; of: (tally: LayerTally) => Readonly<Record<string, number>> },
  ): void {
    const { name, help, by, of } = metric;
    const read = () =>
      this.#ofModels((model, { layers }) =>
        [...layers].flatMap(([layer, tally]) =>
          Object.entries(of(tally)).map(([which, count]): Sample => [{ model, layer, [by]: which }, count]),
        ),
      );
    counterOf(registry, { name, help, labelNames: [...LAYER, by], read });
  }

  #ofModels(samples: (model: string, tally: ModelTally) => readonly Sample[]): Sample[] {
    return [...this.#models].flatMap(([model, tally]) => samples(model, tally));
  }

  #forgetOthers(): void {
    const standing = this.#standing();
    for (const model of standing) this.#tallyOf(model);
    for (const [model, { layers }] of this.#models) {
      if (standing.has(model)) continue;
      this.#models.delete(model);
      this.#requestSeconds.remove({ model });
      for (const layer of layers.keys()) {
        for (const each of [this.#layerSeconds, this.#decodeSeconds, this.#errorGain]) each.remove({ model, layer });
      }
    }
  }
}
