/** The lanes of one request, large; and the latest requests, small, to choose from. */
import { useRef, useState } from 'preact/hooks';
import { Card } from './card.js';
import * as format from './format.js';
import { inWords, layOut, workersOf, type Lanes } from '../state/lanes.js';
import { Legend, MARK_WORDS, MarkShape } from './marks.js';
import { PAGE_REQUEST, type RequestLine, type WorkerLine } from '../protocol.js';
import { StepsTable } from './steps-table.js';
import { useWidth } from './use-width.js';

/** A new request is shown so often: to be read, not only seen. */
const SHOW_EVERY_MS = 450;
const MOST_SMALL = 12;

interface LanesProps {
  readonly requests: readonly RequestLine[];
  readonly workers: readonly WorkerLine[];
  /** The page runs requests itself: those are shown. */
  readonly isTrying: boolean;
}

export function LanesCard({ requests, workers, isTrying }: LanesProps) {
  const [pinned, pin] = useState<RequestLine | undefined>();
  const [isLive, setLive] = useState(true);
  const latest = useLatest(isTrying ? own(requests) : requests, isLive);
  const shown = pinned ?? latest.at(-1);
  const hold = (request: RequestLine) => {
    pin(request.number === pinned?.number ? undefined : request);
  };
  const aside = (
    <button
      type="button"
      aria-pressed={!isLive}
      onClick={() => {
        setLive(!isLive);
        pin(undefined);
      }}
    >
      {isLive ? 'Pause' : 'Go on'}
    </button>
  );
  return (
    <Card id="lanes" title="Arrivals" aside={aside}>
      {shown === undefined ? (
        <p class="empty">No request yet. Try a picture, or send one to this server: its arrivals appear here.</p>
      ) : (
        <>
          <Summary request={shown} isPinned={pinned !== undefined} />
          <Drawing request={shown} workers={workers} />
          <Legend />
          <Small requests={latest.slice(-MOST_SMALL)} shown={shown} onChoose={hold} />
          <StepsTable request={shown} />
        </>
      )}
    </Card>
  );
}

function own(requests: readonly RequestLine[]): readonly RequestLine[] {
  const mine = requests.filter(({ id }) => id.startsWith(PAGE_REQUEST));
  return mine.length > 0 ? mine : requests;
}

/** `requests` as they were when they were shown last, unless that is a while ago and they are live. */
function useLatest(requests: readonly RequestLine[], isLive: boolean): readonly RequestLine[] {
  const seen = useRef({ atMs: -Infinity, requests });
  const now = performance.now();
  const isOther = seen.current.requests.at(-1)?.model !== requests.at(-1)?.model;
  if (isOther || (isLive && now - seen.current.atMs >= SHOW_EVERY_MS)) seen.current = { atMs: now, requests };
  return seen.current.requests;
}

function Summary({ request, isPinned }: { readonly request: RequestLine; readonly isPinned: boolean }) {
  const { number, ms, queueMs, error, steps } = request;
  const replies = steps.flatMap(step => step.replies);
  const count = (kind: string) => replies.filter(reply => reply.kind === kind && reply.isRecovered).length;
  const gain = Math.max(1, ...steps.map(({ errorGain }) => errorGain));
  return (
    <p class="summary">
      <span>
        <b>#{number}</b>
        {isPinned && ' (held)'}
      </span>
      {error === null ? <b>{format.ms(ms)}</b> : <b class="bad">{error}</b>}
      {queueMs >= 0.05 && <span>{format.ms(queueMs)} in the queue</span>}
      <span class={count('cancelled') > 0 ? 'late-text' : 'muted'}>{count('cancelled')} recovered late</span>
      <span class={count('failed') > 0 ? 'lost-text' : 'muted'}>{count('failed')} recovered lost</span>
      {gain > 1 && <span class="muted">error gain {gain.toFixed(1)}</span>}
    </p>
  );
}

interface DrawingProps {
  readonly request: RequestLine;
  readonly workers: readonly WorkerLine[];
}

function Drawing({ request, workers }: DrawingProps) {
  const [element, width] = useWidth<HTMLDivElement>();
  const laneHeight = workersOf(request).length > 12 ? 15 : 24;
  const lanes = layOut(request, { width, left: width < 480 ? 34 : 92, top: 20, laneHeight });
  const states = new Map(workers.map(worker => [worker.index, worker]));
  return (
    <div ref={element} class="drawing">
      <svg width={width} height={lanes.height + 22} role="img" aria-label={inWords(request)}>
        <Grid lanes={lanes} width={width} />
        {lanes.rows.map(({ worker, y }) => {
          const { state = 'removed', address = '' } = states.get(worker) ?? {};
          return (
            <g key={worker}>
              <path class="lane" d={`M${width < 480 ? 30 : 88} ${y}H${width}`} />
              <circle class={`state ${state}`} cx={8} cy={y} r={4} />
              <text class="lane-name" x={18} y={y + 4}>
                {width < 480 ? worker : `worker ${worker}`}
                <title>{`worker ${worker}, ${address}: ${state}`}</title>
              </text>
            </g>
          );
        })}
        {lanes.marks.map(mark => (
          <g key={`${mark.worker} ${mark.block} ${mark.x}`}>
            {mark.tailX < mark.x && <path class={`tail ${mark.kind}`} d={`M${mark.tailX} ${mark.y}H${mark.x - 4}`} />}
            <MarkShape {...mark} size={mark.kind === 'used' ? 4 : 4.5} />
            <title>
              {`worker ${mark.worker}, ${mark.isParity ? 'parity' : 'data'} block ${mark.block}: ${MARK_WORDS[mark.kind]}` +
                (mark.atMs === null ? '' : `; its reply came at ${format.ms(mark.atMs)}`) +
                (mark.isBeyond ? ', later than is drawn' : '')}
            </title>
          </g>
        ))}
      </svg>
    </div>
  );
}

function Grid({ lanes, width }: { readonly lanes: Lanes; readonly width: number }) {
  const { bands, ticks, height } = lanes;
  return (
    <g>
      {bands.map(({ x, width: bandWidth, readyX, label, step }, index) => (
        <g key={index}>
          <rect class={index % 2 === 0 ? 'band' : 'band odd'} x={x} y={20} width={bandWidth} height={height - 20}>
            <title>{`${step.layers.join(', ')}: any ${step.k} of ${step.n}, ready after ${format.ms(step.readyMs)}`}</title>
          </rect>
          <text class="band-name" x={x + 2} y={13}>
            {label}
          </text>
          {readyX !== null && <path class="ready" d={`M${readyX} 20V${height}`} />}
        </g>
      ))}
      {ticks.map(({ x, ms }) => (
        <g key={ms}>
          <path class="tick" d={`M${x} ${height}v4`} />
          <text class="tick-name" x={Math.min(x, width - 14)} y={height + 16}>
            {Number(ms.toPrecision(3))}
            {ms === 0 ? ' ms' : ''}
          </text>
        </g>
      ))}
    </g>
  );
}

interface SmallProps {
  readonly requests: readonly RequestLine[];
  readonly shown: RequestLine;
  readonly onChoose: (request: RequestLine) => void;
}

const SMALL = { width: 84, left: 3, top: 3, laneHeight: 5 };

function Small({ requests, shown, onChoose }: SmallProps) {
  return (
    <div class="small-lanes" role="group" aria-label="The latest requests: choose one to hold it">
      {requests.map(request => {
        const lanes = layOut(request, SMALL);
        const height = Math.max(lanes.height, 20) + 3;
        return (
          <button
            key={request.number}
            type="button"
            aria-pressed={request.number === shown.number}
            aria-label={inWords(request)}
            onClick={() => onChoose(request)}
          >
            <svg width={SMALL.width} height={height} aria-hidden="true">
              {lanes.bands.map(
                ({ readyX }, index) =>
                  readyX !== null && <path key={index} class="ready" d={`M${readyX} 0V${height}`} />,
              )}
              {lanes.marks.map(mark => (
                <MarkShape key={`${mark.worker} ${mark.block} ${mark.x}`} {...mark} size={1.7} />
              ))}
            </svg>
            <span class={request.error === null ? '' : 'bad'}>{request.error ?? format.ms(request.ms)}</span>
          </button>
        );
      })}
    </div>
  );
}
