/** One answer of an upstream on its way through: from the request to its end, with stop texts, ids and counts. */

import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { Clock, Engine, EngineDelta, EngineDone, GenerateRequest } from '../../../protocol/ports.ts';
import { type Ms, ms, seconds } from '../../../protocol/units.ts';
import { type AnswerText, createAnswerText } from '../../answer-text.ts';
import { type ChatStream, createChatStream, toUpstreamBody } from './chat.ts';
import { isThinking, type Overlap, refuseResume } from './continue.ts';
import type { FollowedModel } from './follow.ts';
import { type HttpRequest, type HttpResponse, readText, type UpstreamHttp } from './http.ts';
import { explainRefusal } from './refusals.ts';

const refusalMaxBytes = 65_536;
/** Usage follows the finish reason at once, or never. */
const usageTimeoutMs = seconds(5);
/** Thinking shows within the first characters of an answer. */
const openingChars = 64;

type Emit = Parameters<Engine['generate']>[1];

/** Where an answer goes, and until when. */
export interface Run {
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

/** What an answer is made with. */
export interface Serving {
  readonly clock: Clock;
  readonly http: UpstreamHttp;
  readonly idleTimeoutMs: Ms;
}

/** What is asked of the server, and how its reply is read. */
export interface Plan {
  readonly path: string;
  readonly json: Record<string, unknown>;
  readonly chat: ChatRequest;
  readonly text: AnswerText;
  /** What was shown before is taken off first. */
  readonly overlap?: Overlap;
  /** Of what the server goes on from. */
  readonly prefillTokens: number;
  /** Nobody can go on from the words of an answer in which the model thinks aloud. */
  readonly marksThinking: boolean;
  readonly isResumed: boolean;
}

/** Rejects as soon as `signal` aborts, whatever else is waited for. */
function createAbortion(signal: AbortSignal): Disposable & { readonly race: <T>(work: Promise<T>) => Promise<T> } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {});
  const abort = (): void => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  return {
    race: (work) => Promise.race([work, promise]),
    [Symbol.dispose]: () => signal.removeEventListener('abort', abort),
  };
}

/** The error that a status other than 200 stands for. */
export async function refuse(response: HttpResponse, chat: ChatRequest): Promise<never> {
  const text = await readText(response, refusalMaxBytes);
  throw explainRefusal({ status: response.status, retryAfter: response.header('retry-after'), text }, chat);
}

/** Pieces of an upstream on their way to `emit`. */
function createOutlet({ text, overlap, marksThinking, isResumed }: Plan, stream: ChatStream, emit: Emit) {
  let opening = '';
  let isOpaque = false;
  let wasOpaque = false;
  let shownBytes = 0;
  let hasShown = isResumed;

  function mark(): void {
    isOpaque ||= !wasOpaque;
    wasOpaque = true;
  }

  function hand(delta: EngineDelta | undefined): Promise<void> | undefined {
    // Before the first text there is nothing that anybody could go on from.
    if (delta === undefined && (!isOpaque || !hasShown)) return undefined;
    const { text: shown, tokenIds } = delta ?? { text: '', tokenIds: [] };
    const { promptTokens } = stream;
    const isFirst = shownBytes === 0 && promptTokens !== undefined;
    const whole = {
      text: shown,
      tokenIds,
      ...(isFirst ? { promptTokens } : {}),
      ...(isOpaque ? { isOpaque } : {}),
    };
    isOpaque = false;
    hasShown = true;
    shownBytes += Buffer.byteLength(shown);
    return emit(whole);
  }

  return {
    get shownBytes() {
      return shownBytes;
    },
    push(piece: EngineDelta): Promise<void> | undefined {
      if (piece.isOpaque === true) {
        if (isResumed && shownBytes === 0) throw refuseResume('the server has begun to think in the middle of it');
        mark();
      }
      const fresh = overlap === undefined ? piece.text : overlap.push(piece.text);
      if (marksThinking && opening.length < openingChars) {
        opening += fresh;
        if (isThinking(opening)) mark();
      }
      return hand(text.push(fresh, piece.tokenIds));
    },
    flush: () => hand(text.flush()),
  };
}

/** Sends the request and passes its reply on; resolves when the server has said how it ended. */
export async function pass(
  { clock, http, idleTimeoutMs }: Serving,
  plan: Plan,
  { emit, signal }: Run,
): Promise<EngineDone> {
  const startMs = clock.nowMs();
  let firstMs: Ms | undefined;
  using abortion = createAbortion(signal);
  const request: HttpRequest = { path: plan.path, json: plan.json, idleTimeoutMs, signal };
  return await http.request(request, async (response): Promise<EngineDone> => {
    if (response.status !== 200) return await refuse(response, plan.chat);
    const stream = createChatStream(plan.chat, plan.prefillTokens);
    const outlet = createOutlet(plan, stream, emit);
    const hand = async (wait: Promise<void> | undefined): Promise<void> => {
      // The connection is closed by an abort at once, so nobody may wait for a consumer meanwhile.
      if (wait !== undefined) await abortion.race(wait);
      signal.throwIfAborted();
    };
    const pieces = response.body[Symbol.asyncIterator]();
    while (!stream.isComplete && !plan.text.stopped) {
      const next = pieces.next();
      // Left alone below when only the usage does not come; its end is then nobody's concern.
      next.catch(() => {});
      const bytes = stream.isFinished ? await Promise.race([next, clock.sleep(usageTimeoutMs)]) : await next;
      if (bytes === undefined || bytes.done === true) break;
      for (const piece of stream.feed(bytes.value)) {
        firstMs ??= clock.nowMs();
        await hand(outlet.push(piece));
        if (plan.text.stopped) break;
      }
    }
    const done = stream.end(plan.text.stopped);
    await hand(outlet.flush());
    const endMs = clock.nowMs();
    const completionTokens = Math.min(done.completionTokens, outlet.shownBytes + 1);
    const prefillMs = ms((firstMs ?? endMs) - startMs);
    return { ...done, completionTokens, prefillMs, decodeMs: ms(endMs - (firstMs ?? endMs)) };
  });
}

/**
 * Ids are asked for, and stop texts are looked for here only: a server that does holds text back while it tells the ids,
 * and nobody could say which ids the text ends with.
 */
export const withIds = { return_token_ids: true, stop: undefined };

/** Begins an answer. */
export function begin(
  serving: Serving,
  { kind, continuing }: FollowedModel,
  { model, chat }: GenerateRequest,
  { emit, signal }: Run,
): Promise<EngineDone> {
  const plan: Plan = {
    path: '/chat/completions',
    json: { ...toUpstreamBody(model, chat), ...(continuing.by === 'tokens' ? withIds : {}) },
    chat,
    text: createAnswerText(chat.stop),
    prefillTokens: 0,
    marksThinking: continuing.by === 'text' && kind !== 'sglang',
    isResumed: false,
  };
  return pass(serving, plan, { emit, signal });
}
