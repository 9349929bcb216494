/** A camera to try the server with: what it sees, what the model sees of it, and what the model says. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { Card } from './card.js';
import type { Connection } from '../state/connection.js';
import * as format from './format.js';
import { DEFAULT_PREPROCESSING, describe, imageInputOf, type ImageInput, type Preprocessing } from '../trial/image.js';
import { PreprocessingForm } from './preprocessing-form.js';
import type { ModelLine } from '../protocol.js';
import { run, type Outcome, type Source } from '../trial/trial.js';

interface CameraProps {
  readonly model: ModelLine;
  readonly version: string | undefined;
  readonly connection: Connection;
  readonly source: Source | undefined;
  readonly onSource: (source: Source | undefined) => void;
}

export function CameraCard(props: CameraProps) {
  const { model, source, onSource } = props;
  const input = imageInputOf(model);
  const button = (which: Source, words: string) => (
    <button
      type="button"
      aria-pressed={source === which}
      onClick={() => onSource(source === which ? undefined : which)}
    >
      {words}
    </button>
  );
  const aside = input !== undefined && (
    <span class="buttons">
      {button('samples', 'Samples')}
      {button('camera', 'Camera')}
    </span>
  );
  return (
    <Card id="camera" title="Try it" aside={aside}>
      {input === undefined ? (
        <p class="empty">
          {model.name} takes no picture: that is one input of shape [N, C, H, W] or [N, H, W, C] with 1, 3 or 4
          channels.
        </p>
      ) : (
        <Pictures {...props} input={input} />
      )}
    </Card>
  );
}

function Pictures({
  model,
  version,
  connection,
  source,
  onSource,
  input,
}: CameraProps & { readonly input: ImageInput }) {
  const [options, setOptions] = useState<Preprocessing>(DEFAULT_PREPROCESSING);
  const [outcome, setOutcome] = useState<Outcome>();
  const [error, setError] = useState('');
  const video = useRef<HTMLVideoElement>(null);
  const picture = useRef<HTMLCanvasElement>(null);
  const seen = useRef<HTMLCanvasElement>(null);
  const about = JSON.stringify([model.name, version, input, model.labels?.length]);

  useEffect(() => {
    setError('');
    if (source === undefined) return;
    const ending = new AbortController();
    const trial = {
      ...{ source, connection, model, version, input, options },
      ...{ video: video.current!, picture: picture.current!, seen: seen.current! },
      onOutcome: (next: Outcome) => {
        setOutcome(next);
        setError('');
      },
      onError: setError,
    };
    run(trial, ending.signal).catch((reason: unknown) => {
      setError(reason instanceof Error ? reason.message : String(reason));
      onSource(undefined);
    });
    return () => ending.abort();
  }, [source, about, options]);

  return (
    <>
      <div class="trial">
        <figure>
          <video ref={video} hidden={source !== 'camera'} playsInline muted aria-label="What the camera sees" />
          <canvas ref={picture} hidden={source === 'camera'} role="img" aria-label="The sample picture" />
          <figcaption>{source ?? 'picture'}</figcaption>
        </figure>
        <figure>
          <canvas ref={seen} role="img" aria-label={`What the model sees: ${input.width} by ${input.height} pixels`} />
          <figcaption>what the model sees</figcaption>
        </figure>
        <Scores outcome={outcome} />
      </div>
      {error !== '' && (
        <p class="bad" role="alert">
          {error}
        </p>
      )}
      <p class="note">{describe(input, options)}</p>
      <PreprocessingForm input={input} options={options} onChange={setOptions} />
    </>
  );
}

function Scores({ outcome }: { readonly outcome: Outcome | undefined }) {
  if (outcome?.classes === undefined) {
    return <p class="empty scores">Choose samples, the test images that come with kofn, or this device’s camera.</p>;
  }
  const { classes, picture, ms, truth } = outcome;
  const [best] = classes.top;
  return (
    <div class="scores">
      <p class="answer">
        <b>{best!.label}</b>
        {truth !== undefined && (
          <span class={truth === best!.label ? 'good' : 'late-text'}>
            {truth === best!.label ? '✓ right' : `is ${truth}`}
          </span>
        )}
      </p>
      <ol aria-label="Classes">
        {classes.top.map(({ index, label, score }) => (
          <li key={index}>
            <span class="label">{label}</span>
            <meter min={0} max={1} value={score} aria-label={label} />
            <span class="number">{(100 * score).toFixed(1)} %</span>
          </li>
        ))}
      </ol>
      <p class="note">
        picture {picture} · {format.ms(ms)} there and back{classes.isSoftmax ? ' · softmax of the output' : ''}
      </p>
    </div>
  );
}
