/** The page: everything that is known of one model, beside what all share. */
import { useState } from 'preact/hooks';
import { CameraCard } from './views/camera-view.js';
import type { Connection, Link } from './state/connection.js';
import { EventsCard } from './views/events-view.js';
import { FiguresRow } from './views/figures-view.js';
import { FleetCard } from './views/fleet-view.js';
import { HistogramCard } from './views/histogram-view.js';
import { LanesCard } from './views/lanes-view.js';
import { PlanCard } from './views/plan-view.js';
import type { ModelLine, PageState } from './protocol.js';
import type { Source } from './trial/trial.js';

const LINK_WORDS: Readonly<Record<Link, string>> = {
  connecting: 'connecting …',
  live: 'live',
  lost: 'connection lost, trying again …',
  token: 'a token is needed',
};

export function App({ connection }: { readonly connection: Connection }) {
  const { state, link } = connection;
  const [chosen, choose] = useState<string>();
  const models = state?.models ?? [];
  const model = models.find(each => keyOf(each) === chosen) ?? models[0];
  return (
    <>
      <header>
        <h1>kofn</h1>
        {models.length > 1 ? (
          <label class="model">
            <span class="hidden">Model</span>
            <select value={model && keyOf(model)} onChange={event => choose(event.currentTarget.value)}>
              {models.map(each => (
                <option key={keyOf(each)} value={keyOf(each)}>
                  {each.name} {each.version}
                </option>
              ))}
            </select>
          </label>
        ) : (
          model !== undefined && (
            <p class="model">
              {model.name} <span class="muted">version {model.version}</span>
            </p>
          )
        )}
        <p class={`link ${link}`} role="status">
          {LINK_WORDS[link]}
        </p>
      </header>
      {link === 'token' && <TokenForm connection={connection} />}
      {state !== undefined && <Dashboard connection={connection} state={state} model={model} />}
    </>
  );
}

interface DashboardProps {
  readonly connection: Connection;
  readonly state: PageState;
  readonly model: ModelLine | undefined;
}

function Dashboard({ connection, state, model }: DashboardProps) {
  const [source, setSource] = useState<Source>();
  const { workers, events, atMs, load, faults } = state;
  const isOfModel = (line: { model: string; version: string }) =>
    keyOf({ ...line, name: line.model }) === (model && keyOf(model));
  const figures = state.figures.find(isOfModel);
  const health = state.health.find(isOfModel);
  const isAmbiguous = state.models.filter(({ name }) => name === model?.name).length > 1;
  return (
    <main>
      <FiguresRow figures={figures} load={load} />
      <div class="columns">
        <div class="column">
          {model !== undefined && (
            <CameraCard
              connection={connection}
              model={model}
              version={isAmbiguous ? model.version : undefined}
              source={source}
              onSource={setSource}
            />
          )}
          <LanesCard requests={state.requests.filter(isOfModel)} workers={workers} isTrying={source !== undefined} />
          {model !== undefined && <PlanCard model={model} health={health} workers={workers} />}
        </div>
        <div class="column">
          <FleetCard
            workers={workers}
            health={health}
            onFault={faults ? fault => connection.bringFault(fault) : undefined}
          />
          <HistogramCard waits={figures?.waits} />
          <EventsCard events={events} atMs={atMs} />
        </div>
      </div>
    </main>
  );
}

function TokenForm({ connection }: { readonly connection: Connection }) {
  const [token, setToken] = useState('');
  return (
    <form
      class="token"
      onSubmit={event => {
        event.preventDefault();
        connection.useToken(token);
      }}
    >
      <label>
        Token{' '}
        <input
          type="password"
          autocomplete="current-password"
          required
          value={token}
          onInput={event => setToken(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Use it</button>
      <p class="note">The one that the server was started with. It is kept for this tab, and sent to nobody else.</p>
    </form>
  );
}

function keyOf({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name} ${version}`;
}
