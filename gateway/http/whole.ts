/** A chat's answer as one JSON object: collected while it comes, sent at its end. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { type AnswerIdentity, wholeAnswer } from '../openai/answer.ts';
import type { Answer, AnswerEnd, AnswerEvents, Served } from '../service.ts';
import type { Exchange, Running } from './exchange.ts';
import { type Responding, respond, respondError } from './respond.ts';

/** More text than any context holds; beyond it a node is taken to be broken. */
const answerMaxBytes = 33_554_432;

export class WholeAnswer implements AnswerEvents, Running {
  readonly #exchange: Exchange;
  readonly #identity: AnswerIdentity;
  readonly #responding: Responding;
  #answer: Answer | undefined;
  #text = '';
  #bytes = 0;
  #isOver = false;

  constructor(exchange: Exchange, identity: AnswerIdentity, responding: Responding) {
    this.#exchange = exchange;
    this.#identity = identity;
    this.#responding = responding;
  }

  start(answer: Answer): void {
    this.#answer = answer;
    this.#exchange.running = this;
  }

  committed(served: Served): void {
    this.#exchange.committed(served);
  }

  delta(text: string): void {
    if (this.#isOver) return;
    const bytes = Buffer.byteLength(text);
    this.#text += text;
    this.#bytes += bytes;
    if (this.#bytes <= answerMaxBytes) this.#answer?.consumed(bytes);
    else this.abandon(new HelixFlowError('ENGINE_FAILED', { reason: 'the answer does not end' }));
  }

  restarted(): void {
    this.#text = '';
    this.#bytes = 0;
  }

  done(end: AnswerEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const told = this.#exchange.done(end);
    const body = wholeAnswer(this.#identity, this.#text, end, told);
    respond(this.#exchange, { status: 200, body }, this.#responding);
  }

  failed(error: HelixFlowError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    respondError(this.#exchange, error, this.#responding);
  }

  gone(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#answer?.cancel();
  }

  abandon(error: HelixFlowError): void {
    if (this.#isOver) return;
    this.#answer?.cancel();
    this.failed(error);
  }
}
