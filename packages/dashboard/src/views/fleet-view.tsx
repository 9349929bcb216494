/** The workers, how they are, and what they hold up; with buttons to disturb them, where that is allowed. */
import { useState } from 'preact/hooks';
import { Card } from './card.js';
import * as format from './format.js';
import { FAULT_ACTIONS, type FaultAction, type FaultRequest, type HealthLine, type WorkerLine } from '../protocol.js';

interface FleetProps {
  readonly workers: readonly WorkerLine[];
  readonly health: HealthLine | undefined;
  /** Undefined where faults are not allowed. */
  readonly onFault: ((fault: FaultRequest) => Promise<void>) | undefined;
}

const WORDS: Readonly<Record<FaultAction, string>> = { kill: 'Kill', pause: 'Pause', slow: 'Slow', restore: 'Restore' };

export function FleetCard({ workers, health, onFault }: FleetProps) {
  const [said, say] = useState('');
  const there = workers.filter(({ state }) => state !== 'removed');
  const ready = there.filter(({ state }) => state === 'ready').length;
  const act = async (fault: FaultRequest) => {
    say(`worker ${fault.worker}: ${fault.action} …`);
    try {
      await onFault!(fault);
      say(`worker ${fault.worker}: ${fault.action} done`);
    } catch (error) {
      say(`worker ${fault.worker}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  return (
    <Card id="fleet" title="Fleet" aside={`${ready} of ${there.length} ready`}>
      <Margin health={health} />
      <div class="scroll">
        <table>
          <caption class="hidden">Workers</caption>
          <thead>
            <tr>
              <th scope="col">Worker</th>
              <th scope="col">State</th>
              <th scope="col" class="number wide">
                MAC/s
              </th>
              <th scope="col" class="number wide">
                Round trip
              </th>
              <th scope="col" class={onFault === undefined ? 'number' : 'number wide'}>
                In time
              </th>
              {onFault !== undefined && <th scope="col">Faults</th>}
            </tr>
          </thead>
          <tbody>
            {there.map(worker => (
              <Row key={worker.index} worker={worker} onFault={onFault && act} />
            ))}
          </tbody>
        </table>
      </div>
      <p class="note" role="status">
        {said}
      </p>
    </Card>
  );
}

function Margin({ health }: { readonly health: HealthLine | undefined }) {
  if (health === undefined || health.margin === null) return null;
  const { margin } = health;
  const words =
    margin > 0
      ? `Any ${margin} more worker${margin === 1 ? '' : 's'} may fail, and no answer changes.`
      : margin === 0
        ? 'No margin: after one more loss the workers alone cannot answer (onLoss says who computes then).'
        : 'Fewer than k blocks of a layer are left: onLoss says who computes the rest.';
  return (
    <p class={`margin ${margin > 0 ? 'good' : margin === 0 ? 'warn' : 'bad'}`}>
      <b>margin {margin}</b> {words}
    </p>
  );
}

interface RowProps {
  readonly worker: WorkerLine;
  readonly onFault: ((fault: FaultRequest) => Promise<void>) | undefined;
}

function Row({ worker, onFault }: RowProps) {
  const { index, address, state, reason, macsPerSecond, rttMs, slowness, isStraggler, inTime } = worker;
  return (
    <tr>
      <th scope="row">
        <b>{index}</b>
        <span class="address">{address}</span>
      </th>
      <td>
        <span class={`badge ${state}`} title={reason}>
          {state}
        </span>
        {isStraggler && <span class="badge straggler">{format.times(slowness)} slow</span>}
      </td>
      <td class="number wide">{format.big(macsPerSecond)}</td>
      <td class="number wide">{format.ms(rttMs)}</td>
      <td class={onFault === undefined ? 'number' : 'number wide'}>{format.part(inTime)}</td>
      {onFault !== undefined && (
        <td class="buttons">
          {FAULT_ACTIONS.map(action => (
            <button
              key={action}
              type="button"
              aria-label={`${WORDS[action]} worker ${index}`}
              onClick={() => void onFault({ worker: index, action })}
            >
              {WORDS[action]}
            </button>
          ))}
        </td>
      )}
    </tr>
  );
}
