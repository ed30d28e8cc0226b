/** Follows what an upstream serves: its list of models now and then, and once for each how it goes on with an answer. */

import { HelixFlowError, isHelixFlowError } from '../../../protocol/errors.ts';
import type { Cancel, Clock, EngineModel, Log } from '../../../protocol/ports.ts';
import type { Ms } from '../../../protocol/units.ts';
import { createListeners } from '../listeners.ts';
import { readText, type UpstreamHttp, upstreamFault } from './http.ts';
import {
  type Continuing,
  type DeclaredContinuation,
  describeServer,
  kindByOwner,
  notContinuing,
  type ServerKind,
} from './kinds.ts';
import { type DeclaredModel, type ListedModel, readModels } from './models.ts';
import { askKind, probeContinuing, probeTimeoutMs } from './probe.ts';

const listMaxBytes = 4_194_304;
/** One poll may get lost on a busy server. */
const missesMax = 2;
/** A server that is too busy for a probe is asked again with the next polls. */
const probesMax = 3;

/** A model, and how its server goes on with an answer. */
export interface FollowedModel {
  readonly model: EngineModel;
  readonly kind: ServerKind;
  readonly continuing: Continuing;
}

export interface FollowOptions {
  readonly declared: DeclaredModel;
  readonly continuation: DeclaredContinuation;
  readonly pollMs: Ms;
}

export interface Followed {
  models(): readonly EngineModel[];
  find(name: string): FollowedModel | undefined;
  onChange(listener: () => void): Cancel;
  /** @throws HelixFlowError ENGINE_FAILED, CONFIG_INVALID */
  start(): Promise<void>;
  close(): void;
}

async function listModels(http: UpstreamHttp, declared: DeclaredModel, signal: AbortSignal): Promise<ListedModel[]> {
  return await http.request({ path: '/models', idleTimeoutMs: probeTimeoutMs, signal }, async (response) => {
    const text = await readText(response, listMaxBytes);
    if (response.status === 200) return readModels(declared, text);
    const { status } = response;
    if (status === 401 || status === 403) throw upstreamFault(`it refuses the node's API key (status ${status})`);
    throw upstreamFault(`it answered ${declared.baseUrl}/models with status ${status}`);
  });
}

/** One digest cannot stand for several models. */
function checkDigest(models: ListedModel[], { digest }: DeclaredModel): ListedModel[] {
  if (digest === undefined || models.length <= 1) return models;
  throw new HelixFlowError('CONFIG_INVALID', {
    reason: `a digest names one model, and this server lists ${models.length}; leave --digest out`,
  });
}

/** What is known of one server: forgotten when it goes away, since another may come in its place. */
function createKnowledge(http: UpstreamHttp, continuation: DeclaredContinuation) {
  /** Of models whose owner does not tell. */
  let asked: ServerKind | undefined;
  const found = new Map<string, Continuing>();
  const probes = new Map<string, number>();

  const kindOf = ({ ownedBy }: ListedModel): ServerKind => kindByOwner(ownedBy) ?? asked ?? 'other';

  /** vLLM and SGLang behave the same for all models they list; llama-server by each model's template. */
  function keyOf(model: ListedModel): string {
    const kind = kindOf(model);
    return kind === 'llamacpp' ? `${kind} ${model.name}` : kind;
  }

  /** The operator's word stands, but only llama-server itself knows whether it shows text again. */
  function isOpen(model: ListedModel): boolean {
    const kind = kindOf(model);
    const isProbed = continuation === 'auto' ? kind === 'vllm' || kind === 'sglang' : false;
    const isWanted = isProbed || (kind === 'llamacpp' && continuation !== 'none');
    const key = keyOf(model);
    return isWanted && model.isLoaded && !found.has(key) && (probes.get(key) ?? 0) < probesMax;
  }

  return {
    forget() {
      asked = undefined;
      found.clear();
      probes.clear();
    },
    async learnKind(models: readonly ListedModel[], signal: AbortSignal): Promise<void> {
      if (asked !== undefined || models.every(({ ownedBy }) => kindByOwner(ownedBy) !== undefined)) return;
      asked = await askKind(http, signal);
    },
    /** Finds out about one model that nothing is known of; true when something new is known. */
    async probe(models: readonly ListedModel[], signal: AbortSignal): Promise<boolean> {
      const model = models.find(isOpen);
      if (model === undefined) return false;
      const key = keyOf(model);
      probes.set(key, (probes.get(key) ?? 0) + 1);
      const continuing = await probeContinuing(http, kindOf(model), model, signal);
      if (continuing !== undefined) found.set(key, continuing);
      return continuing !== undefined;
    },
    describe(listed: ListedModel): FollowedModel {
      const kind = kindOf(listed);
      const known = found.get(keyOf(listed)) ?? notContinuing;
      const by = continuation === 'auto' ? known.by : continuation;
      const { name, digest, contextTokens, ownedBy } = listed;
      const build = describeServer(kind, ownedBy);
      const model: EngineModel = { name, digest, digestKind: 'declared', contextTokens, continuation: by, build };
      return { model, kind, continuing: { ...known, by } };
    },
  };
}

/** Asks for the list of models now and then; `models` follows what the server says. */
export function followModels(
  deps: { readonly clock: Clock; readonly log: Log; readonly http: UpstreamHttp },
  { declared, continuation, pollMs }: FollowOptions,
): Followed {
  const { clock, log, http } = deps;
  const closing = new AbortController();
  const changes = createListeners();
  const knowledge = createKnowledge(http, continuation);
  let followed: readonly FollowedModel[] = [];
  let models: readonly EngineModel[] = [];
  let misses = 0;
  let cancel = (): void => {};

  function set(next: readonly FollowedModel[]): void {
    followed = next;
    const offered = next.map(({ model }) => model);
    if (JSON.stringify(offered) === JSON.stringify(models)) return;
    models = offered;
    log.info('upstream_models', { count: offered.length });
    changes.tell();
  }

  /** Each step is bounded as a whole, so that a server that trickles cannot hold up the next one. */
  async function look(): Promise<void> {
    const within = async <Result>(step: (signal: AbortSignal) => Promise<Result>): Promise<Result> => {
      using deadline = clock.deadline(probeTimeoutMs, closing.signal);
      return await step(deadline.signal);
    };
    const listed = await within(async (signal) => {
      const list = checkDigest(await listModels(http, declared, signal), declared);
      await knowledge.learnKind(list, signal);
      return list;
    });
    set(listed.map(knowledge.describe));
    if (await within((signal) => knowledge.probe(listed, signal))) set(listed.map(knowledge.describe));
  }

  async function poll(): Promise<void> {
    try {
      await look();
      misses = 0;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      if (closing.signal.aborted) return;
      misses += 1;
      log.debug('upstream_poll_failed', { code: error.code });
      if (misses >= missesMax) {
        knowledge.forget();
        set([]);
      }
    }
    again();
  }

  function again(): void {
    if (!closing.signal.aborted) cancel = clock.timer(pollMs, () => void poll());
  }

  return {
    models: () => models,
    find: (name) => followed.find(({ model }) => model.name === name),
    onChange: changes.add,
    async start() {
      await look();
      again();
    },
    close() {
      closing.abort(new HelixFlowError('ENGINE_FAILED', { reason: 'the engine was closed' }));
      cancel();
    },
  };
}
