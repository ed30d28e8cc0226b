/** One HTTP request from its arrival to the end of its response: what is known of it, and who watches. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, HelixFlowError } from '../../protocol/errors.ts';
import type { KeyId, RequestId } from '../../protocol/ids.ts';
import type { Clock } from '../../protocol/ports.ts';
import { Bag, type BagItem } from '../../protocol/tables.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Rate } from '../access/subject.ts';
import type { Told } from '../openai/answer.ts';
import { rateHeaders } from '../openai/rate.ts';
import type { AnswerEnd, Served } from '../service.ts';

/** How a request ended: `cancelled` by its client, `stalled` when its client did not read. */
export type Outcome = 'ok' | 'failed' | 'cancelled' | 'stalled';

/** What is known of a request once its response has ended; no prompt, no answer, no key. */
export interface RequestRecord {
  readonly requestId: RequestId;
  readonly method: string;
  /** The pattern of the route, or `unknown`. */
  readonly route: string;
  /** As sent; 499 when the client left before any was. */
  readonly status: number;
  readonly outcome: Outcome;
  readonly durationMs: Ms;
  /** Why it failed; also in mid-stream, where the status had been 200. */
  readonly error?: ErrorCode | undefined;
  /** As the client wrote it, so never a label of a metric by itself. */
  readonly model?: string | undefined;
  readonly isStream: boolean;
  readonly served?: Served | undefined;
  readonly firstTokenMs?: Ms | undefined;
  /** Of a request that was run, and billed: not of one that shares another's answer. */
  readonly end?: AnswerEnd | undefined;
  /** The key that was found good; its name, never its text. */
  readonly keyId?: KeyId | undefined;
}

/** Told of every request, in the event loop: must be quick and must not throw. */
export interface RequestObserver {
  started?(): void;
  finished(record: RequestRecord): void;
}

/** An answer that is being made; ended from outside when its client or the process goes. */
export interface Running {
  /** The client has gone. */
  gone(): void;
  /** Ends it with an error that its client can read. */
  abandon(error: HelixFlowError): void;
}

/** A request that has come in. */
export interface Arrival {
  readonly id: RequestId;
  readonly request: IncomingMessage;
  readonly raw: ServerResponse;
  readonly route: string;
}

/** A request under way. */
export class Exchange implements BagItem {
  bagIndex = -1;
  readonly id: RequestId;
  readonly request: IncomingMessage;
  readonly raw: ServerResponse;
  readonly route: string;
  readonly startMs: Ms;
  readonly #clock: Clock;
  outcome: Outcome = 'ok';
  isStream = false;
  /** Its answer is that of an earlier request with the same idempotency key. */
  isReplay = false;
  isDraining = false;
  /** As in `GatewayAppOptions`. */
  tellsProvenance = true;
  /** The whole response has been handed to the kernel. */
  isSent = false;
  running: Running | undefined;
  error: ErrorCode | undefined;
  model: string | undefined;
  served: Served | undefined;
  firstTokenMs: Ms | undefined;
  end: AnswerEnd | undefined;
  /** What the key has left, once a chat has been asked for with it. */
  rate: Rate | undefined;
  /** As in `Access`. */
  staleSeconds: number | undefined;
  keyId: KeyId | undefined;

  constructor(arrival: Arrival, clock: Clock) {
    this.id = arrival.id;
    this.request = arrival.request;
    this.raw = arrival.raw;
    this.route = arrival.route;
    this.#clock = clock;
    this.startMs = clock.nowMs();
  }

  /** True when nothing can be written any more. */
  get isGone(): boolean {
    return this.raw.destroyed || this.raw.closed;
  }

  sinceStartMs(): Ms {
    return ms(this.#clock.nowMs() - this.startMs);
  }

  /** Notes that a node has begun to answer. */
  committed(served: Served): void {
    this.served = served;
    this.firstTokenMs = this.sinceStartMs();
  }

  /** All of the answer has come. @returns what is told of how it was made. */
  done(end: AnswerEnd): Told {
    this.served = end.served;
    this.end = end;
    const totalMs = this.sinceStartMs();
    return this.tellsProvenance ? { firstTokenMs: this.firstTokenMs ?? totalMs, totalMs } : undefined;
  }

  /** Headers of every response, in an object of the caller's own; those of the serving node once it is known. */
  headers(): Record<string, string> {
    const headers: Record<string, string> = {
      'x-request-id': this.id,
      'openai-processing-ms': String(Math.round(this.sinceStartMs())),
      'openai-version': '2020-10-01',
    };
    if (this.served !== undefined && this.tellsProvenance) {
      headers['x-helixflow-node'] = this.served.node;
      headers['x-helixflow-attempts'] = String(this.served.attempts);
    }
    if (this.rate !== undefined) rateHeaders(this.rate, headers);
    if (this.staleSeconds !== undefined) headers['x-helixflow-stale'] = String(this.staleSeconds);
    if (this.isReplay) headers['x-helixflow-idempotent-replay'] = 'true';
    if (this.isDraining) headers['connection'] = 'close';
    return headers;
  }

  record(): RequestRecord {
    const { raw, error, model, served, firstTokenMs, end, isStream, route, keyId } = this;
    if (this.outcome === 'ok' && !this.isSent) this.outcome = 'cancelled';
    return {
      requestId: this.id,
      method: this.request.method ?? '',
      route,
      status: raw.headersSent ? raw.statusCode : 499,
      outcome: this.outcome,
      durationMs: this.sinceStartMs(),
      isStream,
      error,
      model,
      served,
      firstTokenMs,
      // Its tokens were counted with the request that was run.
      end: this.isReplay ? undefined : end,
      keyId,
    };
  }
}

const ignore = (): void => {};

/** All requests under way. */
export class Exchanges {
  readonly #open = new Bag<Exchange>();
  readonly #observers: readonly RequestObserver[];
  #whenIdle: (() => void)[] = [];
  #isDraining = false;

  constructor(observers: readonly RequestObserver[]) {
    this.#observers = observers;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Follows `exchange` to its end. */
  begin(exchange: Exchange): void {
    exchange.isDraining = this.#isDraining;
    this.#open.add(exchange);
    for (const observer of this.#observers) observer.started?.();
    // Without a listener, an error of a socket that has gone would end the process.
    exchange.raw.on('error', ignore);
    exchange.raw.once('finish', () => {
      exchange.isSent = true;
    });
    exchange.raw.once('close', () => this.#closed(exchange));
  }

  #closed(exchange: Exchange): void {
    this.#open.delete(exchange);
    exchange.running?.gone();
    if (this.#observers.length > 0) {
      const record = exchange.record();
      for (const observer of this.#observers) observer.finished(record);
    }
    if (this.#open.size > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** From now on no chat is begun, and connections close after the response under way. */
  drain(): void {
    this.#isDraining = true;
    for (const exchange of this.#open.all()) exchange.isDraining = true;
  }

  /** Resolves when no request is under way. */
  idle(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** True when a response has begun on this socket. */
  isAnswering(socket: Socket): boolean {
    for (const { request, raw } of this.#open.all()) if (request.socket === socket && raw.headersSent) return true;
    return false;
  }

  /** Ends every answer that is still being made, with an error that its client can read. */
  abandonAll(): void {
    for (const { running } of this.#open.all())
      running?.abandon(new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs: 1_000 }));
  }
}
