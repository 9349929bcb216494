import { Card } from './card.js';
import * as format from './format.js';
import type { EventLine } from '../protocol.js';

const SHOWN = 30;

/** The newest first. */
export function EventsCard({ events, atMs }: { readonly events: readonly EventLine[]; readonly atMs: number }) {
  const shown = events.slice(-SHOWN).reverse();
  return (
    <Card id="events" title="Events">
      {shown.length === 0 ? (
        <p class="empty">Nothing has happened to the workers.</p>
      ) : (
        <div class="log" role="log" aria-label="Events of the cluster, the newest first" tabIndex={0}>
          <ol>
            {shown.map(({ atMs: at, kind, message }) => (
              <li key={`${at} ${message}`}>
                <span class={`badge ${kind}`}>{kind}</span> <span>{message}</span>{' '}
                <span class="muted">{format.ago(atMs - at)}</span>
              </li>
            ))}
          </ol>
        </div>
      )}
    </Card>
  );
}
