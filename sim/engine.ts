/** The simulated engine: paced under virtual time, its text a function of prompt and position, with faults to order. */

import { type AnswerText, createAnswerText } from '../node/answer-text.ts';
import { countPromptTokens, hashPrompt, syntheticDelta, syntheticText } from '../node/synthetic-text.ts';
import { untilTaken } from '../node/taken.ts';
import { sha256Hex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { ModelDigest } from '../protocol/ids.ts';
import type { ChatRequest } from '../protocol/messages/chat.ts';
import type {
  Cancel,
  Clock,
  Engine,
  EngineDone,
  EngineModel,
  EngineStats,
  GenerateRequest,
} from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { hashOf } from './directory-records.ts';
import type { FaultCounts } from './effects.ts';

export interface SimEngineOptions {
  readonly model: string;
  readonly slots: number;
  readonly contextTokens: number;
  readonly prefillMsPerToken: number;
  readonly decodeMsPerToken: number;
  /** Part of the digest: engines of another one generate other texts, so that a mixture of two shows. */
  readonly salt: string;
  /** Absent: `tokens`. */
  readonly continuation?: EngineModel['continuation'];
}

/** What the answer to `chat` is, when nobody cuts it: as many tokens as the prompt decides. */
export function expectedTokens(chat: ChatRequest, salt: string): readonly string[] {
  const seed = seedOf(chat, salt);
  return Array.from({ length: lengthOf(seed) }, (_, position) => syntheticDelta(seed, position).text);
}

const seedOf = (chat: ChatRequest, salt: string): number => (hashPrompt(chat) ^ hashOf(salt)) >>> 0;
const lengthOf = (seed: number): number => 12 + (seed % 60);

type Emit = Parameters<Engine['generate']>[1];

/** One answer, from its slot to its end. */
interface Job {
  readonly text: AnswerText;
  readonly promptTokens: number;
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

const refused = (reason: string): HelixFlowError => new HelixFlowError('RESUME_REFUSED', { reason });
const down = (reason: string): HelixFlowError => new HelixFlowError('ENGINE_FAILED', { reason });

export class SimEngine implements Engine {
  readonly kind = 'simulated';
  readonly slots: number;
  readonly #clock: Clock;
  readonly #counts: FaultCounts;
  readonly #options: SimEngineOptions;
  readonly #model: EngineModel;
  readonly #listeners = new Set<() => void>();
  readonly #running = new Set<AbortController>();
  readonly #queue: (() => void)[] = [];
  #active = 0;
  #isUp = true;
  #slowFactor = 1;
  #stall: { readonly gate: Promise<void>; readonly open: () => void } | undefined;
  #tokens = 0;
  #busyMs = 0;
  #progress = 0;

  constructor(clock: Clock, counts: FaultCounts, options: SimEngineOptions) {
    this.#clock = clock;
    this.#counts = counts;
    this.#options = options;
    this.slots = options.slots;
    this.#model = {
      name: options.model,
      digest: sha256Hex('simulated', options.model, options.salt) as ModelDigest,
      digestKind: 'synthetic',
      contextTokens: options.contextTokens,
      continuation: options.continuation ?? 'tokens',
      build: 'simulated',
    };
  }

  models(): readonly EngineModel[] {
    return this.#isUp ? [this.#model] : [];
  }

  stats(): EngineStats {
    const tokensPerSecond = this.#busyMs === 0 ? 0 : Math.max(1, Math.round((this.#tokens * 1_000) / this.#busyMs));
    return { active: this.#active, slots: this.slots, tokensPerSecond, progress: this.#progress };
  }

  onChange(listener: () => void): Cancel {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.crash();
  }

  /** Fails everything that runs, and serves nothing until `recover`. */
  crash(): void {
    this.#counts.add('engineCrash', this.#running.size);
    this.#isUp = false;
    for (const controller of this.#running) controller.abort(down('the engine crashed'));
    for (const listener of this.#listeners) listener();
  }

  recover(): void {
    this.#isUp = true;
    for (const listener of this.#listeners) listener();
  }

  /** No token comes until `resume`. */
  stall(): void {
    if (this.#stall !== undefined) return;
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    this.#stall = { gate, open };
  }

  resume(): void {
    this.#stall?.open();
    this.#stall = undefined;
  }

  setSlowness(factor: number): void {
    this.#slowFactor = factor;
  }

  async generate(request: GenerateRequest, emit: Emit, signal: AbortSignal): Promise<EngineDone> {
    if (request.model !== this.#model.name) throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
    const promptTokens = countPromptTokens(request.chat);
    this.#checkContext(promptTokens, request.chat.maxTokens ?? 1);
    const text = this.#open(request);
    signal.throwIfAborted();
    if (!this.#isUp) throw down('the engine is down');
    const controller = new AbortController();
    const forward = (): void => controller.abort(signal.reason);
    signal.addEventListener('abort', forward, { once: true });
    this.#running.add(controller);
    try {
      await this.#slot(controller.signal);
      try {
        return await this.#run(request, { text, promptTokens, emit, signal: controller.signal });
      } finally {
        this.#active -= 1;
        this.#queue[0]?.();
      }
    } finally {
      this.#running.delete(controller);
      signal.removeEventListener('abort', forward);
    }
  }

  #open({ chat, resume }: GenerateRequest): AnswerText {
    if (resume === undefined) return createAnswerText(chat.stop);
    if (this.#model.continuation === 'none') throw refused('this model goes on from nothing');
    const seed = seedOf(chat, this.#options.salt);
    const isOurs = resume.tokenIds.every((id, position) => syntheticDelta(seed, position).tokenIds[0] === id);
    if (!isOurs) throw refused('its ids are not those of this prompt');
    this.#counts.add('resumed', 1);
    return createAnswerText(chat.stop, { text: syntheticText(seed, resume.tokenIds.length), shown: resume.text });
  }

  #checkContext(promptTokens: number, completionTokens: number): void {
    const { contextTokens } = this.#options;
    const requestedTokens = promptTokens + completionTokens;
    if (requestedTokens <= contextTokens) return;
    const details = { contextTokens, requestedTokens, promptTokens, completionTokens };
    throw new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', details);
  }

  async #slot(signal: AbortSignal): Promise<void> {
    while (this.#active >= this.slots) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          const place = this.#queue.indexOf(wake);
          if (place >= 0) this.#queue.splice(place, 1);
          resolve();
        };
        this.#queue.push(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
      signal.throwIfAborted();
    }
    this.#active += 1;
  }

  async #run({ chat, resume }: GenerateRequest, { text, promptTokens, emit, signal }: Job): Promise<EngineDone> {
    const { prefillMsPerToken, decodeMsPerToken, salt } = this.#options;
    const from = resume?.tokenIds.length ?? 0;
    const startMs = this.#clock.nowMs();
    await this.#work((promptTokens + from) * prefillMsPerToken, signal);
    this.#progress += promptTokens + from;
    const prefillMs = ms(this.#clock.nowMs() - startMs);
    const seed = seedOf(chat, salt);
    const beyondIds = Math.max(0, (resume?.tokens ?? 0) - from);
    const most = (chat.maxTokens ?? Number.POSITIVE_INFINITY) - beyondIds;
    const length = Math.min(lengthOf(seed), most);
    for (let position = from; position < length && !text.stopped; position += 1) {
      await this.#work(decodeMsPerToken, signal);
      const token = syntheticDelta(seed, position);
      this.#tokens += 1;
      this.#progress += 1;
      const delta = text.push(token.text, token.tokenIds);
      const taken = delta && emit({ ...delta, promptTokens });
      if (taken !== undefined) await untilTaken(taken, signal);
      signal.throwIfAborted();
    }
    const rest = text.flush();
    const restTaken = rest && emit(rest);
    if (restTaken !== undefined) await untilTaken(restTaken, signal);
    this.#progress += 1;
    const decodeMs = ms(this.#clock.nowMs() - startMs - prefillMs);
    this.#busyMs += prefillMs + decodeMs;
    const finish = text.stopped || length < most ? 'stop' : 'length';
    return { finish, promptTokens, cachedTokens: 0, completionTokens: text.counted(), prefillMs, decodeMs };
  }

  async #work(workMs: number, signal: AbortSignal): Promise<void> {
    if (this.#slowFactor > 1) this.#counts.add('engineSlow', 1);
    await this.#clock.sleep(ms(workMs * this.#slowFactor), signal);
    while (this.#stall !== undefined) {
      this.#counts.add('engineStall', 1);
      await Promise.race([this.#stall.gate, aborted(signal)]);
      signal.throwIfAborted();
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
