/** A node's own record of one attempt, from its opening until a statement covers it. */

import { type Counted, deliveredTokens } from '../protocol/counting.ts';
import type { ModelDigest, PriceId, ProcessId, RequestId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import { type OwnWork, ownPromptTokens, ownTokens } from './check-statement.ts';
import type { UsageLine } from './line.ts';
import type { ClaimedAttempt, RefusalReason } from './statement.ts';
import type { WorkEnd, WorkStart } from './work.ts';
import type { Waiting } from './work-patience.ts';
import type { WorkRecord } from './work-rows.ts';

type Named = Omit<WorkStart, 'gateway'>;

/** How far the attempt had come at some moment, in connected time. */
interface Mark {
  readonly atMs: number;
  readonly tokens: number;
}

export class TabWork implements OwnWork, Waiting {
  readonly run: ProcessId;
  readonly serial: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly price: PriceId | '';
  readonly bodyBytes: number;
  readonly startMs: UnixMs;
  /** It was on disk when this process began. */
  readonly isOld: boolean;
  statedTokens = -1;
  end: WorkEnd | undefined;
  sinceMs: number;
  endedMs: number | undefined;
  refused: RefusalReason | undefined;
  claims = 0;
  /** The line that covered it, perhaps while it ran here. */
  coveredBy: UsageLine | undefined;
  /** A row of it is on disk, or on its way there. */
  isWritten = false;
  readonly #start: Named | undefined;
  #sent: Counted | undefined;
  #acknowledgedTokens = 0;
  #mark: Mark;

  private constructor(named: Omit<Named, 'sent' | 'acknowledgedTokens'>, startMs: UnixMs, sinceMs: number) {
    const { run, serial, request, model, digest, price, bodyBytes } = named;
    this.run = run;
    this.serial = serial;
    this.request = request;
    this.model = model;
    this.digest = digest;
    this.price = price;
    this.bodyBytes = bodyBytes;
    this.startMs = startMs;
    this.sinceMs = sinceMs;
    this.#mark = { atMs: sinceMs, tokens: 0 };
    this.#start = 'sent' in named ? (named as Named) : undefined;
    this.isOld = this.#start === undefined;
  }

  static begin(start: Named, startMs: UnixMs, nowMs: number): TabWork {
    return new TabWork(start, startMs, nowMs);
  }

  static load(record: WorkRecord): TabWork {
    const { run, serial, request, model, digest, price, bodyBytes, startMs, sinceMs } = record;
    const work = new TabWork({ run, serial, request, model, digest, price, bodyBytes }, startMs, sinceMs);
    work.statedTokens = record.statedTokens;
    work.#sent = record.sent;
    work.#acknowledgedTokens = record.acknowledgedTokens;
    work.end = record.end;
    work.endedMs = record.endedMs;
    work.refused = record.refused;
    work.claims = record.claims;
    work.isWritten = true;
    return work;
  }

  get sent(): Counted {
    return this.#sent ?? (this.#start as Named).sent();
  }

  get acknowledgedTokens(): number {
    return this.#sent === undefined ? (this.#start as Named).acknowledgedTokens() : this.#acknowledgedTokens;
  }

  get tokens(): number {
    return ownTokens(this);
  }

  get isTold(): boolean {
    return this.statedTokens >= this.tokens;
  }

  get isRefused(): boolean {
    return this.refused !== undefined;
  }

  /** Nothing of it can be charged. */
  get isWorthless(): boolean {
    return this.end !== undefined && this.tokens === 0 && ownPromptTokens(this) === 0;
  }

  finish(end: WorkEnd, nowMs: number): void {
    const { acknowledgedTokens, sent } = this;
    this.#sent = sent;
    this.#acknowledgedTokens = acknowledgedTokens;
    this.end = end;
    this.endedMs = nowMs;
  }

  /** A verified statement tells of it as running. */
  told(completionTokens: number, nowMs: number): void {
    // What was never sent cannot have come there.
    this.statedTokens = Math.max(this.statedTokens, Math.min(completionTokens, this.tokens));
    if (this.statedTokens >= this.#mark.tokens) {
      this.sinceMs = Math.max(this.sinceMs, this.#mark.atMs);
      this.#mark = { atMs: nowMs, tokens: this.tokens };
    }
    this.watched(nowMs);
  }

  /** Time passes: what is covered now is not older than now. */
  watched(nowMs: number): void {
    if (!this.isTold) return;
    this.sinceMs = nowMs;
    this.#mark = { atMs: nowMs, tokens: this.tokens };
  }

  /** As it lies on disk; only of one that has ended. */
  record(): WorkRecord | undefined {
    const { end, endedMs } = this;
    if (end === undefined || endedMs === undefined) return undefined;
    const { run, serial, request, model, digest, price, bodyBytes, startMs, sent, acknowledgedTokens } = this;
    const { statedTokens, sinceMs, refused, claims } = this;
    return {
      run,
      serial,
      request,
      model,
      digest,
      price,
      bodyBytes,
      startMs,
      sent,
      acknowledgedTokens,
      statedTokens,
      sinceMs,
      endedMs,
      end,
      refused,
      claims,
    };
  }

  claim(): ClaimedAttempt {
    const { run, serial, request, startMs } = this;
    const completionTokens = this.end?.kind === 'done' ? this.tokens : deliveredTokens(this.sent);
    return { run, serial, request, startMs, promptTokens: ownPromptTokens(this), completionTokens };
  }
}
