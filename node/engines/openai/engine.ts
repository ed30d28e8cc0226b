/** The openai engine: passes chats through to an OpenAI-compatible server that somebody already runs. */

import { HelixFlowError, isHelixFlowError } from '../../../protocol/errors.ts';
import type { ModelDigest } from '../../../protocol/ids.ts';
import type { Clock, Engine, EngineDone, EngineModel, GenerateRequest, Log } from '../../../protocol/ports.ts';
import { type Ms, ms, seconds } from '../../../protocol/units.ts';
import { createListeners } from '../listeners.ts';
import { createMeter } from '../meter.ts';
import { createChatStream, toUpstreamBody } from './chat.ts';
import { createUpstreamHttp, type HttpResponse, readText, type UpstreamHttp, upstreamFault } from './http.ts';
import { type DeclaredModel, readModels } from './models.ts';
import { explainRefusal } from './refusals.ts';

const slotsDefault = 16;
const contextTokensDefault = 131_072;
const listMaxBytes = 4_194_304;
const refusalMaxBytes = 65_536;
const probeTimeoutMs = seconds(5);
/** A prompt of a whole context on a busy server takes its time, without a byte. */
const idleTimeoutDefaultMs = seconds(300);
/** Usage follows the finish reason at once, or never. */
const usageTimeoutMs = seconds(5);
const pollDefaultMs = seconds(5);
/** One poll may get lost on a busy server. */
const missesMax = 2;

export interface UpstreamOptions {
  /** With or without `/v1`. */
  readonly url: string;
  /** Who answers for the server; goes into the declared digest. */
  readonly owner: string;
  readonly apiKey?: string;
  /** What the weights are, by the operator's word; only for a server with one model. */
  readonly digest?: ModelDigest;
  readonly slots?: number;
  /** For models whose context length the server does not tell. */
  readonly contextTokens?: number;
  /** How often the list of models is asked for. */
  readonly pollMs?: Ms;
  /** Silence in an answer after which the server is given up. */
  readonly idleTimeoutMs?: Ms;
}

type Emit = Parameters<Engine['generate']>[1];

/**
 * `http://host:8000`, `http://host:8000/v1/` and the like as `http://host:8000/v1`.
 * @throws HelixFlowError CONFIG_INVALID
 */
export function readBaseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const path = url?.pathname.replace(/\/+$/, '') ?? '';
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.search !== '') {
    const reason = `'${text}' is no address of a server: give one like http://127.0.0.1:8000, without credentials`;
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  return `${url.origin}${path.endsWith('/v1') ? path : `${path}/v1`}`;
}

async function listModels(http: UpstreamHttp, declared: DeclaredModel, signal: AbortSignal): Promise<EngineModel[]> {
  return await http.request({ path: '/models', idleTimeoutMs: probeTimeoutMs, signal }, async (response) => {
    const text = await readText(response, listMaxBytes);
    if (response.status === 200) return readModels(declared, text);
    const { status } = response;
    if (status === 401 || status === 403) throw upstreamFault(`it refuses the node's API key (status ${status})`);
    throw upstreamFault(`it answered ${declared.baseUrl}/models with status ${status}`);
  });
}

async function refuse(response: HttpResponse, { chat }: GenerateRequest): Promise<never> {
  const text = await readText(response, refusalMaxBytes);
  throw explainRefusal({ status: response.status, retryAfter: response.header('retry-after'), text }, chat);
}

/** Asks for the list of models now and then; `models` follows what the server says. */
function followModels(
  deps: { clock: Clock; log: Log },
  ask: (signal: AbortSignal) => Promise<EngineModel[]>,
  pollMs: Ms,
) {
  const { clock, log } = deps;
  const closing = new AbortController();
  const changes = createListeners();
  let models: readonly EngineModel[] = [];
  let misses = 0;
  let cancel = (): void => {};

  function set(next: readonly EngineModel[]): void {
    if (JSON.stringify(next) === JSON.stringify(models)) return;
    models = next;
    log.info('upstream_models', { count: next.length });
    changes.tell();
  }

  async function poll(): Promise<void> {
    try {
      // The whole probe is bounded, so that a server that trickles cannot hold up the next one.
      using deadline = clock.deadline(probeTimeoutMs, closing.signal);
      set(await ask(deadline.signal));
      misses = 0;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      if (closing.signal.aborted) return;
      misses += 1;
      log.debug('upstream_poll_failed', { code: error.code });
      if (misses >= missesMax) set([]);
    }
    again();
  }

  function again(): void {
    if (!closing.signal.aborted) cancel = clock.timer(pollMs, () => void poll());
  }

  return {
    models: () => models,
    onChange: changes.add,
    async start() {
      using deadline = clock.deadline(probeTimeoutMs, closing.signal);
      models = await ask(deadline.signal);
      again();
    },
    close() {
      closing.abort(new HelixFlowError('ENGINE_FAILED', { reason: 'the engine was closed' }));
      cancel();
    },
  };
}

/** Runs one chat; resolves when the upstream has said how it ended. */
async function passThrough(
  { clock, http, idleTimeoutMs }: { clock: Clock; http: UpstreamHttp; idleTimeoutMs: Ms },
  request: GenerateRequest,
  emit: Emit,
  signal: AbortSignal,
): Promise<EngineDone> {
  const startMs = clock.nowMs();
  let firstMs: Ms | undefined;
  const json = toUpstreamBody(request.model, request.chat);
  return await http.request({ path: '/chat/completions', json, idleTimeoutMs, signal }, async (response) => {
    if (response.status !== 200) return await refuse(response, request);
    const stream = createChatStream(request.chat);
    const pieces = response.body[Symbol.asyncIterator]();
    while (!stream.isComplete) {
      const next = pieces.next();
      // Left alone below when only the usage does not come; its end is then nobody's concern.
      next.catch(() => {});
      const piece = stream.isFinished ? await Promise.race([next, clock.sleep(usageTimeoutMs)]) : await next;
      if (piece === undefined || piece.done === true) break;
      for (const text of stream.feed(piece.value)) {
        firstMs ??= clock.nowMs();
        await emit({ text, tokenIds: [] });
        signal.throwIfAborted();
      }
    }
    const endMs = clock.nowMs();
    return { ...stream.end(), prefillMs: ms((firstMs ?? endMs) - startMs), decodeMs: ms(endMs - (firstMs ?? endMs)) };
  });
}

async function startFollowing(url: string, start: () => Promise<void>): Promise<void> {
  try {
    await start();
  } catch (error) {
    if (!isHelixFlowError(error) || isHelixFlowError(error, 'CONFIG_INVALID')) throw error;
    const { reason = error.code } = error.details as { reason?: string };
    throw new HelixFlowError('UPSTREAM_UNREACHABLE', { url, reason }, { cause: error });
  }
}

/**
 * Opens an upstream server; resolves once it has told what it serves.
 * @throws HelixFlowError UPSTREAM_UNREACHABLE, CONFIG_INVALID.
 */
export async function openUpstreamEngine(
  deps: { readonly clock: Clock; readonly log: Log },
  options: UpstreamOptions,
): Promise<Engine> {
  const { clock } = deps;
  const { owner, digest, apiKey, slots = slotsDefault, idleTimeoutMs = idleTimeoutDefaultMs } = options;
  const baseUrl = readBaseUrl(options.url);
  const http = createUpstreamHttp({ clock, baseUrl, ...(apiKey === undefined ? {} : { apiKey }) });
  const { contextTokens = contextTokensDefault } = options;
  const declared: DeclaredModel = { owner, baseUrl, contextTokens, ...(digest === undefined ? {} : { digest }) };
  const followed = followModels(
    { clock, log: deps.log.with({ engine: 'openai' }) },
    async (signal) => checkDigest(await listModels(http, declared, signal), digest),
    options.pollMs ?? pollDefaultMs,
  );
  const meter = createMeter(clock);
  const closing = new AbortController();
  const close = async (): Promise<void> => {
    followed.close();
    closing.abort(new HelixFlowError('ENGINE_FAILED', { reason: 'the engine was closed' }));
    await http.close();
  };
  try {
    await startFollowing(baseUrl, followed.start);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    kind: 'openai',
    slots,
    models: followed.models,
    stats: () => ({ active: meter.active, slots, tokensPerSecond: meter.perSecond() }),
    onChange: followed.onChange,
    async generate(request, emit, signal) {
      signal.throwIfAborted();
      if (!followed.models().some(({ name }) => name === request.model)) {
        throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
      }
      const end = meter.begin();
      try {
        const either = AbortSignal.any([signal, closing.signal]);
        const done = await passThrough({ clock, http, idleTimeoutMs }, request, emit, either);
        meter.tokens(done.completionTokens);
        return done;
      } finally {
        end();
      }
    },
    close,
  };
}

/** One digest cannot stand for several models. */
function checkDigest(models: EngineModel[], digest: ModelDigest | undefined): EngineModel[] {
  if (digest === undefined || models.length <= 1) return models;
  throw new HelixFlowError('CONFIG_INVALID', {
    reason: `a digest names one model, and this server lists ${models.length}; leave --digest out`,
  });
}
