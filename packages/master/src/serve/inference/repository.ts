/**
 * The models of a server by name and version: each from its file, loaded, loaded again and unloaded while the others go on.
 *
 * Invariants
 * 1. What is loaded answers until something else does: loading again puts only shards that are new and swaps between two requests
 *    (`CodedModel.update`); when it fails, what was there goes on.
 * 2. Unloading takes no new request and waits for those under way.
 * 3. Loading and unloading of one version happen in turn.
 */
import { KofnError, type Signal } from '@kofn/core';
import type { IndexedModel } from '@kofn/wire';
import type { Cluster } from '../../fleet/cluster.js';
import { codedModel, type CodedModel } from '../../coded-model.js';
import type { DeployProgress, ModelOptions } from '../../contract/options.js';
import type { ServedModel } from './served.js';

/** What is served under a name and version. */
export interface ModelFile {
  readonly name: string;
  /** A whole number from 1: requests that name none get the highest that is loaded. */
  readonly version: string;
  /** Path of the ONNX file, read each time that it is loaded. */
  readonly file: string;
  /** Class names in the order of the outputs. */
  readonly labels?: readonly string[] | undefined;
  /** How it is coded; the rest is the server's. */
  readonly options?: Omit<ModelOptions, 'name' | 'onProgress' | 'signal'> | undefined;
}

export type LoadProgress = (model: Pick<ModelFile, 'name' | 'version'>, progress: DeployProgress) => void;

/** A model in use: it stays loaded until this is disposed. */
export interface ModelLease extends Disposable {
  readonly served: ServedModel;
}

const NAME = /^[A-Za-z0-9][\w.-]{0,127}$/;
const VERSION = /^[1-9]\d{0,8}$/;

export class ModelRepository {
  readonly #cluster: Cluster;
  readonly #onProgress: LoadProgress | undefined;
  /** By name, the highest version first. */
  readonly #entries = new Map<string, Entry[]>();

  /** Throws INVALID_ARGUMENT (a name or version, or one that is there twice). Nothing is loaded yet. */
  constructor(cluster: Cluster, files: readonly ModelFile[], onProgress?: LoadProgress) {
    this.#cluster = cluster;
    this.#onProgress = onProgress;
    for (const file of files) {
      const { name, version } = checkName(file);
      const versions = this.#entries.get(name) ?? [];
      if (versions.some(entry => entry.file.version === version)) {
        throw new KofnError('INVALID_ARGUMENT', `model ${name}:${version} is given twice; give one another version`);
      }
      versions.push(new Entry(file));
      versions.sort((a, b) => Number(b.file.version) - Number(a.file.version));
      this.#entries.set(name, versions);
    }
  }

  /** Those that are loaded. */
  get models(): readonly ServedModel[] {
    return this.#all.flatMap(({ served }) => (served === undefined ? [] : [served]));
  }

  index(): IndexedModel[] {
    return this.#all.map(({ file: { name, version }, state, reason }) => ({ name, version, state, reason }));
  }

  /** Versions of `name`, in ascending order. Throws NOT_FOUND. */
  versions(name: string): string[] {
    return this.#named(name)
      .map(({ file }) => file.version)
      .reverse();
  }

  /** What answers for `name`; with version '' the highest that is loaded. Throws NOT_FOUND, UNAVAILABLE (it is not loaded). */
  find(name: string, version: string): ServedModel {
    return this.#loaded(name, version).served!;
  }

  /** As `find`, for a request. */
  use(name: string, version: string): ModelLease {
    const entry = this.#loaded(name, version);
    return { served: entry.served!, [Symbol.dispose]: entry.lease() };
  }

  /**
   * Loads the version of `name`, or all with ''. What is loaded is loaded again from its file. Throws NOT_FOUND, and as `codedModel` and
   * `CodedModel.update`; those before it are then loaded.
   */
  async load(name: string, version: string, signal?: Signal): Promise<void> {
    for (const entry of this.#chosen(name, version)) await entry.inTurn(() => this.#load(entry, signal));
  }

  /** Loads every model. Throws as `load`. */
  async loadAll(signal?: Signal): Promise<void> {
    for (const name of this.#entries.keys()) await this.load(name, '', signal);
  }

  /** Gives up the shards of the version of `name`, or of all with '', when their requests have ended. Throws NOT_FOUND. */
  async unload(name: string, version: string): Promise<void> {
    await Promise.all(this.#chosen(name, version).map(entry => entry.inTurn(() => entry.unload())));
  }

  get #all(): Entry[] {
    return [...this.#entries.values()].flat();
  }

  #named(name: string): readonly Entry[] {
    const entries = this.#entries.get(name);
    if (entries !== undefined) return entries;
    const there = [...this.#entries.keys()].join(', ') || 'none';
    throw new KofnError('NOT_FOUND', `there is no model "${name.slice(0, 128)}"; this server has ${there}`);
  }

  #chosen(name: string, version: string): readonly Entry[] {
    const entries = this.#named(name);
    if (version === '') return entries;
    const entry = entries.find(({ file }) => file.version === version);
    if (entry !== undefined) return [entry];
    const there = this.versions(name).join(', ');
    const what = `model "${name}" has no version "${version.slice(0, 32)}"; it has ${there}`;
    throw new KofnError('NOT_FOUND', what);
  }

  #loaded(name: string, version: string): Entry {
    const entries = this.#chosen(name, version);
    const entry = entries.find(({ served }) => served !== undefined);
    if (entry !== undefined) return entry;
    const [{ state, reason, file }] = entries as [Entry];
    const why = reason === '' ? state.toLowerCase() : reason;
    const advice = `POST /v2/repository/models/${file.name}/load, or RepositoryModelLoad, loads it`;
    throw new KofnError('UNAVAILABLE', `model ${file.name}:${file.version} is not loaded (${why}); ${advice}`);
  }

  async #load(entry: Entry, signal: Signal | undefined): Promise<void> {
    const { name, version, file, options } = entry.file;
    const about = {
      onProgress: (progress: DeployProgress) => this.#onProgress?.(entry.file, progress),
      ...(signal === undefined ? {} : { signal }),
    };
    await entry.load(current => {
      if (current !== undefined) return current.update(file, about).then(() => current);
      return codedModel(file, { ...options, ...about, cluster: this.#cluster, name: `${name}:${version}` });
    });
  }
}

class Entry {
  readonly file: ModelFile;
  state: IndexedModel['state'] = 'LOADING';
  reason = 'it waits for its turn';
  /** Undefined while it takes no requests. */
  served: ServedModel | undefined;
  #leases = 0;
  #onIdle: (() => void) | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(file: ModelFile) {
    this.file = file;
  }

  /** Ends with the call of what it returns. */
  lease(): () => void {
    this.#leases++;
    return () => {
      if (--this.#leases === 0) this.#onIdle?.();
    };
  }

  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const working = this.#turn.then(work);
    this.#turn = working.catch(() => undefined);
    return working;
  }

  async load(put: (current: CodedModel | undefined) => Promise<CodedModel>): Promise<void> {
    const { name, version, labels } = this.file;
    const before = this.served;
    if (before === undefined) [this.state, this.reason] = ['LOADING', 'its shards are on their way to the workers'];
    else this.reason = 'it is loaded again; what was there answers meanwhile';
    try {
      this.served = { name, version, labels, model: await put(before?.model) };
      [this.state, this.reason] = ['READY', ''];
    } catch (error) {
      const { message } = KofnError.from(error);
      if (before === undefined) [this.state, this.reason] = ['UNAVAILABLE', `loading failed: ${message}`];
      else this.reason = `loading again failed, and what was there goes on: ${message}`;
      throw error;
    }
  }

  async unload(): Promise<void> {
    const { served } = this;
    if (served === undefined) return;
    this.served = undefined;
    [this.state, this.reason] = ['UNLOADING', 'it answers what it has taken'];
    if (this.#leases > 0) await new Promise<void>(resolve => (this.#onIdle = resolve));
    this.#onIdle = undefined;
    try {
      await served.model.close();
    } finally {
      [this.state, this.reason] = ['UNAVAILABLE', 'it was unloaded'];
    }
  }
}

/** Throws INVALID_ARGUMENT. */
function checkName(file: ModelFile): ModelFile {
  if (!NAME.test(file.name)) {
    const rule = 'letters, digits, ".", "_" and "-", 128 at most, the first a letter or digit';
    throw new KofnError('INVALID_ARGUMENT', `model name "${file.name}": give ${rule} (NAME=FILE)`);
  }
  if (!VERSION.test(file.version)) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `version "${file.version}" of model "${file.name}": give a whole number from 1`,
    );
  }
  return file;
}
