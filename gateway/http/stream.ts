/** A chat's answer as server-sent events: every piece at once while the client keeps up, merged while it does not. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Cancel } from '../../protocol/ports.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { type AnswerChunks, type AnswerIdentity, answerChunks } from '../openai/answer.ts';
import { errorEvent } from '../openai/errors.ts';
import type { Answer, AnswerEnd, AnswerEvents, Served } from '../service.ts';
import type { Exchange, Running } from './exchange.ts';
import { noteFailure, type Responding, respondError } from './respond.ts';

export interface StreamOptions {
  /** Headers leave after this long even if there is no content yet. */
  readonly headersAfterMs: Ms;
  /** A stream that has been idle for this long gets a sign of life. */
  readonly keepAliveMs: Ms;
  /** What that sign is: an SSE comment, an empty chunk for clients that cannot take comments, or nothing. */
  readonly keepAlive: 'comment' | 'chunk' | 'off';
}

/** Text that may wait for a client; twice what a node may send ahead, so more is a broken promise of the node's. */
const backlogMaxBytes = 524_288;
/** Events that may wait in the socket; only beyond it are pieces merged, so that a burst in one turn is not. */
const socketMaxBytes = 262_144;
/** One merged chunk at most; its being taken is the sign that a slow client still reads. */
const mergedMaxChars = 16_384;

const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
} as const;

/** The length of a first slice that splits no character. */
function sliceLength(text: string): number {
  if (text.length <= mergedMaxChars) return text.length;
  const last = text.charCodeAt(mergedMaxChars - 1);
  return last >= 0xd800 && last <= 0xdbff ? mergedMaxChars - 1 : mergedMaxChars;
}

export class ChatStream implements AnswerEvents, Running {
  readonly #exchange: Exchange;
  readonly #identity: AnswerIdentity;
  readonly #includeUsage: boolean;
  readonly #responding: Responding;
  readonly #options: StreamOptions;
  #answer: Answer | undefined;
  /** Set once the headers have left. */
  #chunks: AnswerChunks | undefined;
  #hasRole = false;
  /** `ended`: nothing more comes from the service; `closed`: nothing more can be written. */
  #state: 'running' | 'ended' | 'closed' = 'running';
  #isBackedUp = false;
  #backlog = '';
  #backlogBytes = 0;
  /** Bytes of text that the socket has, but the client may not. */
  #unreportedBytes = 0;
  /** The last events, waiting for the backlog before them. */
  #ending = '';
  #lastWriteMs: Ms;
  #cancelTick: Cancel | undefined;
  #cancelStall: Cancel | undefined;

  constructor(
    exchange: Exchange,
    asked: { readonly identity: AnswerIdentity; readonly includeUsage: boolean },
    deps: { readonly responding: Responding; readonly options: StreamOptions },
  ) {
    this.#exchange = exchange;
    this.#identity = asked.identity;
    this.#includeUsage = asked.includeUsage;
    this.#responding = deps.responding;
    this.#options = deps.options;
    this.#lastWriteMs = exchange.startMs;
  }

  start(answer: Answer): void {
    this.#answer = answer;
    this.#exchange.running = this;
    this.#exchange.isStream = true;
    this.#tickAfter(this.#options.headersAfterMs);
  }

  committed(served: Served): void {
    if (this.#state !== 'running') return;
    this.#exchange.committed(served);
    const chunks = this.#open(served.digest);
    if (!this.#hasRole) this.#write(chunks.role);
    this.#hasRole = true;
  }

  delta(text: string): void {
    const chunks = this.#chunks;
    if (this.#state !== 'running' || chunks === undefined) return;
    const bytes = Buffer.byteLength(text);
    if (this.#isMerging()) {
      this.#backlog += text;
      this.#backlogBytes += bytes;
      if (this.#backlogBytes > backlogMaxBytes) this.#cut('failed');
      return;
    }
    this.#unreportedBytes += bytes;
    if (this.#write(chunks.text(text))) this.#report();
  }

  done(end: AnswerEnd): void {
    if (this.#state !== 'running') return;
    const told = this.#exchange.done(end);
    const chunks = this.#open(end.served.digest);
    this.#finish((this.#hasRole ? '' : chunks.role) + chunks.end(end, told));
  }

  failed(error: HelixFlowError): void {
    if (this.#state !== 'running') return;
    if (this.#chunks === undefined) {
      this.#close();
      respondError(this.#exchange, error, this.#responding);
      return;
    }
    noteFailure(this.#exchange, error, this.#responding.log);
    this.#finish(errorEvent(error));
  }

  gone(): void {
    const wasRunning = this.#state === 'running';
    this.#close();
    if (wasRunning) this.#answer?.cancel();
  }

  abandon(error: HelixFlowError): void {
    if (this.#state !== 'running') return;
    this.#answer?.cancel();
    this.failed(error);
  }

  #open(digest: ModelDigest | undefined): AnswerChunks {
    if (this.#chunks !== undefined) return this.#chunks;
    this.#chunks = answerChunks(this.#identity, this.#includeUsage, digest);
    this.#exchange.raw.writeHead(200, Object.assign(this.#exchange.headers(), streamHeaders));
    return this.#chunks;
  }

  /** @returns false while the socket holds more than it should. */
  #write(events: string): boolean {
    this.#lastWriteMs = this.#responding.clock.nowMs();
    const { raw } = this.#exchange;
    if (raw.write(events)) return true;
    if (!this.#isBackedUp) {
      this.#isBackedUp = true;
      raw.once('drain', () => this.#drained());
      this.#cancelStall = this.#responding.clock.timer(this.#responding.stallMs, () => this.#cut('stalled'));
    }
    return false;
  }

  #isMerging(): boolean {
    return this.#isBackedUp && (this.#backlog !== '' || this.#exchange.raw.writableLength >= socketMaxBytes);
  }

  #drained(): void {
    this.#cancelStall?.();
    this.#isBackedUp = false;
    if (this.#state === 'closed') return;
    this.#report();
    while (this.#backlog !== '' && !this.#isBackedUp) this.#writeBacklog();
    if (this.#ending !== '' && this.#backlog === '') this.#writeEnding();
  }

  #writeBacklog(): void {
    const length = sliceLength(this.#backlog);
    const slice = this.#backlog.slice(0, length);
    const bytes = Buffer.byteLength(slice);
    this.#backlog = this.#backlog.slice(length);
    this.#backlogBytes -= bytes;
    this.#unreportedBytes += bytes;
    if (this.#write(this.#chunks?.text(slice) ?? '')) this.#report();
  }

  #report(): void {
    const bytes = this.#unreportedBytes;
    this.#unreportedBytes = 0;
    if (bytes > 0 && this.#state === 'running') this.#answer?.consumed(bytes);
  }

  #finish(ending: string): void {
    this.#state = 'ended';
    this.#ending = ending;
    this.#cancelTick?.();
    if (this.#backlog === '') this.#writeEnding();
  }

  #writeEnding(): void {
    const { raw } = this.#exchange;
    raw.end(this.#ending);
    this.#ending = '';
    if (raw.writableFinished || raw.writableLength === 0) return;
    this.#cancelStall?.();
    this.#cancelStall = this.#responding.clock.timer(this.#responding.stallMs, () => this.#cut('stalled'));
  }

  #cut(outcome: 'stalled' | 'failed'): void {
    this.#exchange.outcome = outcome;
    if (outcome === 'failed') this.#exchange.error = 'ENGINE_FAILED';
    this.#exchange.raw.destroy();
  }

  #close(): void {
    this.#state = 'closed';
    this.#cancelTick?.();
    this.#cancelStall?.();
    this.#backlog = '';
  }

  #tickAfter(delayMs: Ms): void {
    this.#cancelTick = this.#responding.clock.timer(delayMs, () => this.#tick());
  }

  /** One timer for both duties, set again only when it fires: a timer per token would cost more than the token. */
  #tick(): void {
    const { keepAlive, keepAliveMs } = this.#options;
    if (this.#chunks === undefined) {
      this.#open(undefined);
      this.#exchange.raw.flushHeaders();
      this.#signOfLife();
    }
    if (keepAlive === 'off') return;
    const idleMs = this.#responding.clock.nowMs() - this.#lastWriteMs;
    if (idleMs >= keepAliveMs) this.#signOfLife();
    this.#tickAfter(ms(idleMs >= keepAliveMs ? keepAliveMs : keepAliveMs - idleMs));
  }

  #signOfLife(): void {
    const chunks = this.#chunks;
    const { keepAlive } = this.#options;
    if (keepAlive === 'off' || chunks === undefined || this.#isBackedUp) return;
    if (keepAlive === 'comment') {
      this.#write(': ping\n\n');
      return;
    }
    this.#write(this.#hasRole ? chunks.idle : chunks.role);
    this.#hasRole = true;
  }
}
