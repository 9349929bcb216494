/** The lanes as a table: every figure of them, for whoever does not see them or wants to read them. */
import * as format from './format.js';
import type { ReplyLine, RequestLine, StepLine } from '../protocol.js';

export function StepsTable({ request }: { readonly request: RequestLine }) {
  return (
    <details>
      <summary>The same as a table</summary>
      <div class="scroll">
        <table>
          <caption class="hidden">Arrivals of request {request.number}</caption>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col">Needs</th>
              <th scope="col" class="number">
                Begins
              </th>
              <th scope="col" class="number">
                Ready after
              </th>
              <th scope="col">Replies, in order</th>
              <th scope="col">Not waited for</th>
            </tr>
          </thead>
          <tbody>
            {request.steps.map(step => (
              <tr key={step.layers[0]}>
                <th scope="row">{step.layers.join(', ')}</th>
                <td>
                  {step.k} of {step.n}
                </td>
                <td class="number">{format.ms(step.startMs)}</td>
                <td class="number">{format.ms(step.readyMs)}</td>
                <td>{repliesIn(step, 'arrived')}</td>
                <td>
                  {[repliesIn(step, 'cancelled'), repliesIn(step, 'failed'), here(step)].filter(Boolean).join('; ')}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

function repliesIn({ replies, k }: StepLine, kind: ReplyLine['kind']): string {
  return replies
    .filter(reply => reply.kind === kind)
    .map(({ worker, block, ms, isRecovered, error }) => {
      const when = ms === null ? (error ?? 'no reply') : format.ms(ms);
      const what = kind === 'arrived' ? '' : isRecovered ? ', recovered' : ', not needed';
      return `worker ${worker}${block >= k ? ' (parity)' : ''}: ${when}${what}`;
    })
    .join('; ');
}

function here({ computedHere }: StepLine): string {
  return computedHere.length === 0 ? '' : `blocks ${computedHere.join(', ')} computed by the master`;
}
