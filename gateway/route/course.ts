/** How far the answer of one call has come: what was taken over, from whom, and what its client knows of it. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Delta } from '../../protocol/messages/session.ts';
import type { Serving } from '../nodes.ts';
import type { AnswerEvents, Served } from '../service.ts';
import type { Standing } from './plan.ts';
import { Shown } from './shown.ts';
import type { AttemptPurpose } from './trace.ts';

/** Of one call. */
export class Course {
  /** Content has been taken over, and stands. */
  hasContent = false;
  /** The client knows of it. */
  isCommitted = false;
  /** Attempts of all purposes. */
  attempts = 0;
  #shown: Shown | undefined;
  #shownTokens = 0;
  /** Attempts that count against the limit of the policy. */
  #tries = 0;
  #splices = 0;
  readonly #digest: ModelDigest;
  readonly #nodes: PeerId[] = [];

  constructor(digest: ModelDigest) {
    this.#digest = digest;
  }

  /** Tokens that were taken over from attempts before the one that runs, as they were counted. */
  get shownTokens(): number {
    return this.#shownTokens;
  }

  /** Times that another node went on. */
  get splices(): number {
    return this.#splices;
  }

  /** What has to be carried on by an attempt for this purpose; undefined for one that begins. */
  shownFor(purpose: AttemptPurpose): Shown | undefined {
    return purpose === 'splice' ? this.#shown : undefined;
  }

  left(purpose: AttemptPurpose): void {
    this.attempts += 1;
    if (purpose === 'first' || purpose === 'retry') this.#tries += 1;
  }

  /** A node was too busy to take it: that is no try. */
  refused(purpose: AttemptPurpose): void {
    if (purpose === 'first' || purpose === 'retry') this.#tries -= 1;
  }

  /** It comes from this node now. */
  begins({ peer, continuation }: Serving, early: readonly Delta[] | undefined): void {
    this.hasContent = true;
    if (this.#nodes.at(-1) !== peer) this.#nodes.push(peer);
    this.#shown ??= new Shown(continuation);
    if (early !== undefined) for (const delta of early) this.#shown.add(delta);
  }

  add(delta: Delta): void {
    this.#shown?.add(delta);
  }

  /** Another node goes on after so many more tokens. */
  spliced(tokens: number): void {
    this.#splices += 1;
    this.#shownTokens += tokens;
  }

  /** It begins again: nobody has seen anything of it. */
  restarts(): void {
    this.#splices += 1;
    this.#shown?.restart();
    this.#nodes.length = 0;
    this.hasContent = false;
    this.#tries = 0;
  }

  /** For `recover`. */
  standing(isUnseen: boolean): Standing {
    const { hasContent } = this;
    return {
      attempts: this.#tries,
      splices: this.#splices,
      hasContent,
      continues: this.#shown?.continues,
      isUnseen: isUnseen && this.#shownTokens === 0,
    };
  }

  /** Tells the client, once, that there is content. */
  commit(events: Pick<AnswerEvents, 'committed'>): void {
    if (this.isCommitted) return;
    this.isCommitted = true;
    events.committed(this.served());
  }

  /** An error as the client may be told it now. */
  told(error: HelixFlowError): HelixFlowError {
    return this.isCommitted ? new HelixFlowError('STREAM_INTERRUPTED', {}, { cause: error }) : error;
  }

  served(): Served {
    const node = this.#nodes.at(-1);
    assert(node !== undefined, 'content comes from a node');
    return { node, digest: this.#digest, attempts: this.attempts, nodes: [...this.#nodes], splices: this.#splices };
  }
}
