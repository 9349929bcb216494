/** What coding did for an answer, as parameters of its response: few, short, and never fields of their own. */
import type { InferParameter } from '@kofn/wire';
import type { RunReport } from '../../contract/report.js';

export type Parameters = Readonly<Record<string, InferParameter>>;

/**
 * Of the coded layers of a request, none when nothing is coded: `kofn_k` and `kofn_n`; `kofn_decode_set`, the blocks that each layer
 * was decoded from, layers in the model's order with ";" between them; `kofn_recovered`, how many data blocks were computed from
 * parity, and `kofn_lost`, how many of those because their worker failed (the others were late); `kofn_local`, how many blocks the
 * master computed itself; `kofn_error_gain`, the largest factor by which a decode multiplied float rounding. `rows`, of the requests
 * that were joined, is `kofn_batch`.
 */
export function codingFacts({ layers }: RunReport, rows?: number): Parameters {
  const batch: Parameters = rows === undefined ? {} : { kofn_batch: { int64_param: rows } };
  const [first] = layers;
  if (first === undefined) return batch;
  const sum = (count: (layer: (typeof layers)[number]) => number) =>
    layers.reduce((all, layer) => all + count(layer), 0);
  return {
    ...batch,
    kofn_k: { int64_param: first.k },
    kofn_n: { int64_param: first.k + first.r },
    kofn_decode_set: { string_param: layers.map(({ decodeSet }) => decodeSet.join(',')).join(';') },
    kofn_recovered: { int64_param: sum(({ recovered }) => recovered.lost.length + recovered.late.length) },
    kofn_lost: { int64_param: sum(({ recovered }) => recovered.lost.length) },
    kofn_local: { int64_param: sum(({ computedHere }) => computedHere.length) },
    kofn_error_gain: { double_param: Math.max(...layers.map(({ errorGain }) => errorGain)) },
  };
}
