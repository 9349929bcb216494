/**
 * Calls on inference streams, as the network and the workers' queues see them: each that a request began is answered, or
 * cancelled by its master, or over with its stream; what was cancelled or has expired before its turn does not run; what a
 * worker took before it stops it answers.
 */
import type { NetworkObserver } from '../sim-channel.js';
import type { MachineObserver } from '../machine.js';
import type { Violation } from './request.js';

export class CallLedger
  implements Pick<NetworkObserver, 'onFrame' | 'onStreamEnd'>, Pick<MachineObserver, 'onStart' | 'onUnanswered'>
{
  readonly violations: Violation[] = [];
  /** Ids that are neither answered nor cancelled, by stream. */
  readonly #open = new Map<string, Set<string>>();

  onFrame: NetworkObserver['onFrame'] = (link, stream, _direction, { id, kind }) => {
    const ids = this.#idsOf(`${link.name} stream ${stream}`);
    if (kind === 'request') ids.add(id);
    else ids.delete(id);
  };

  onStreamEnd: NetworkObserver['onStreamEnd'] = (link, stream) => {
    this.#open.delete(`${link.name} stream ${stream}`);
  };

  /** The master died, and its streams with it. */
  forget(): void {
    this.#open.clear();
  }

  onStart: MachineObserver['onStart'] = ({ name }, { isCancelled, waitedMs, timeoutMs }) => {
    if (isCancelled) this.violations.push(`${name} ran a request that was cancelled before its turn`);
    if (timeoutMs !== undefined && waitedMs > timeoutMs + 1e-6) {
      this.violations.push(`${name} ran a request ${waitedMs} ms old that had ${timeoutMs} ms`);
    }
  };

  onUnanswered: MachineObserver['onUnanswered'] = ({ name }, requests) => {
    this.violations.push(`${name} stopped and left ${requests} requests that it had taken unanswered`);
  };

  /** While no request runs, no call is open. */
  checkQuiet(): Violation[] {
    return [...this.#open].flatMap(([stream, ids]) =>
      ids.size === 0 ? [] : [`${stream}: calls ${[...ids].join(', ')} were neither answered nor cancelled`],
    );
  }

  #idsOf(stream: string): Set<string> {
    let ids = this.#open.get(stream);
    if (ids === undefined) this.#open.set(stream, (ids = new Set()));
    return ids;
  }
}
