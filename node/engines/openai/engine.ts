/** The openai engine: passes chats through to an OpenAI-compatible server that somebody already runs. */

import { HelixFlowError, isHelixFlowError } from '../../../protocol/errors.ts';
import type { ModelDigest } from '../../../protocol/ids.ts';
import type { Clock, Engine, Log } from '../../../protocol/ports.ts';
import { type Ms, seconds } from '../../../protocol/units.ts';
import { createMeter } from '../meter.ts';
import { begin, type Serving } from './answer.ts';
import { followModels } from './follow.ts';
import { createUpstreamHttp } from './http.ts';
import type { DeclaredContinuation } from './kinds.ts';
import type { DeclaredModel } from './models.ts';
import { resumeAnswer } from './resume.ts';

const slotsDefault = 16;
const contextTokensDefault = 131_072;
/** A prompt of a whole context on a busy server takes its time, without a byte. */
const idleTimeoutDefaultMs = seconds(300);
const pollDefaultMs = seconds(5);

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
  /** How the server goes on with an answer that was begun elsewhere; `auto`, the default, finds out. */
  readonly continuation?: DeclaredContinuation;
  /** How often the list of models is asked for. */
  readonly pollMs?: Ms;
  /** Silence in an answer after which the server is given up. */
  readonly idleTimeoutMs?: Ms;
}

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
    { clock, log: deps.log.with({ engine: 'openai' }), http },
    { declared, continuation: options.continuation ?? 'auto', pollMs: options.pollMs ?? pollDefaultMs },
  );
  const meter = createMeter(clock);
  const serving: Serving = { clock, http, idleTimeoutMs };
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
      const model = followed.find(request.model);
      if (model === undefined) throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
      const end = meter.begin();
      try {
        const either = AbortSignal.any([signal, closing.signal]);
        const run = { emit, signal: either };
        const { resume } = request;
        const done = await (resume === undefined
          ? begin(serving, model, request, run)
          : resumeAnswer(serving, model, { ...request, resume }, run));
        meter.tokens(done.completionTokens);
        return done;
      } finally {
        end();
      }
    },
    close,
  };
}
