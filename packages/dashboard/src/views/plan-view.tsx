/** The plan, layer by layer: what is coded, on whom each block stands, and how many may still be lost. */
import { memo } from 'preact/compat';
import { Card } from './card.js';
import * as format from './format.js';
import type { HealthLine, ModelLine, PlanLine, SegmentLine, WorkerLine } from '../protocol.js';

interface PlanProps {
  readonly model: ModelLine;
  readonly health: HealthLine | undefined;
  readonly workers: readonly WorkerLine[];
}

export const PlanCard = memo(function PlanCard({ model, health, workers }: PlanProps) {
  const coded = model.layers.filter(layer => layer.coded !== null).length;
  const ready = new Set(workers.filter(({ state }) => state === 'ready').map(({ index }) => index));
  const byLayer = new Map(health?.layers.map(layer => [layer.layer, layer]));
  return (
    <Card id="plan" title="Plan" aside={`${coded} of ${model.layers.length} layers coded`}>
      <div class="scroll">
        <table>
          <caption class="hidden">Layers of {model.name}</caption>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col">Code</th>
              <th scope="col">Blocks on workers</th>
              <th scope="col" class="number">
                Margin
              </th>
              <th scope="col" class="number wide">
                MACs
              </th>
              <th scope="col" class="number wide">
                Block
              </th>
            </tr>
          </thead>
          <tbody>
            {model.layers.map(layer => (
              <Layer key={layer.name} layer={layer} health={byLayer.get(layer.name)} ready={ready} />
            ))}
            <Segments segments={model.segments} />
          </tbody>
        </table>
      </div>
    </Card>
  );
});

interface LayerProps {
  readonly layer: PlanLine;
  readonly health: HealthLine['layers'][number] | undefined;
  readonly ready: ReadonlySet<number>;
}

function Layer({ layer, health, ready }: LayerProps) {
  const { name, operator, reason, coded, macs } = layer;
  if (coded === null) {
    return (
      <tr class="local">
        <th scope="row" title={reason}>
          {name} <span class="muted">{operator}</span>
        </th>
        <td colSpan={3}>on the master: {reason}</td>
        <td class="number wide">{format.big(macs)}</td>
        <td class="wide" />
      </tr>
    );
  }
  return (
    <tr>
      <th scope="row" title={reason}>
        {name} <span class="muted">{operator}</span>
      </th>
      <td>
        {coded.code} {coded.k} + {coded.r}
      </td>
      <td>
        <span class="blocks">
          {health?.workers.map((holders, block) => {
            const isReady = holders.some(worker => ready.has(worker));
            const what = `${block >= coded.k ? 'parity' : 'data'} block ${block} on worker ${holders.join(' and ')}`;
            return (
              <span
                key={block}
                class={`block ${block >= coded.k ? 'parity' : 'data'} ${isReady ? '' : 'away'}`}
                role="img"
                aria-label={`${what}${isReady ? '' : ', which is not ready'}`}
                title={what}
              >
                {holders[0]}
              </span>
            );
          })}
        </span>
      </td>
      <td class={`number ${health !== undefined && health.margin <= 0 ? 'bad' : ''}`}>{health?.margin ?? '–'}</td>
      <td class="number wide">{format.big(macs)}</td>
      <td class="number wide">{format.big(coded.shardBytes, 'B')}</td>
    </tr>
  );
}

/** Those of the master in one row: they are what is between the coded layers. */
function Segments({ segments }: { readonly segments: readonly SegmentLine[] }) {
  const replicated = segments.filter(({ workers }) => workers.length > 0);
  const local = segments.filter(({ workers }) => workers.length === 0);
  const nodes = local.reduce((sum, segment) => sum + segment.nodes, 0);
  return (
    <>
      {replicated.map(({ name, reason, workers }) => (
        <tr key={name} class="local">
          <th scope="row" title={reason}>
            {name}
          </th>
          <td colSpan={5}>on workers {workers.join(', ')}</td>
        </tr>
      ))}
      {local.length > 0 && (
        <tr class="local">
          <th scope="row">between them</th>
          <td colSpan={5}>
            {nodes} node{nodes === 1 ? '' : 's'} on the master, in {local.length} segment{local.length === 1 ? '' : 's'}
          </td>
        </tr>
      )}
    </>
  );
}
