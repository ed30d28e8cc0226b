/** How far the answer of one call has come: what was taken over, from whom, and what its client knows of it. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Delta } from '../../protocol/messages/session.ts';
import type { AnswerEvents, Served } from '../service.ts';
import type { RunningAttempt } from './attempt.ts';
import type { Wanted } from './places.ts';
import type { Standing } from './plan.ts';
import { Shown } from './shown.ts';
import type { AttemptPurpose } from './trace.ts';

/** Times that one answer may begin again: the gateway pays for what is void, and nodes could end what they have begun for that. */
const restartsMax = 3;

/** Refusals that count as no try. A node that lies about its room could be asked without end, with a line for each time. */
const refusalsMax = 64;

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
  /** Nodes that were too busy. */
  #refusals = 0;
  /** Times that it has lost its node, or its next one; these count, too. */
  #moves = 0;
  #restarts = 0;
  #splices = 0;
  /** UTF-8 bytes of text that attempts before the one that runs have told, and those of all that its client has taken. */
  #earlierBytes = 0;
  #takenBytes = 0;
  readonly #digest: ModelDigest;
  readonly #nodes: PeerId[] = [];

  constructor(digest: ModelDigest) {
    this.#digest = digest;
  }

  /** Tokens that were taken over from attempts before the one that runs, as they were counted. */
  get shownTokens(): number {
    return this.#shownTokens;
  }

  /** What has to be carried on by an attempt for this purpose; undefined for one that begins. */
  shownFor(purpose: AttemptPurpose): Shown | undefined {
    return purpose === 'splice' ? this.#shown : undefined;
  }

  /** What an attempt for this purpose needs. */
  wanted(purpose: AttemptPurpose): Wanted {
    const hasContent = this.hasContent || purpose === 'restart';
    return { purpose, shown: this.shownFor(purpose), hasContent };
  }

  left(purpose: AttemptPurpose): void {
    this.attempts += 1;
    if (purpose === 'first' || purpose === 'retry') this.#tries += 1;
  }

  /** A node was too busy to take it: that is no try. */
  refused(purpose: AttemptPurpose): void {
    this.#refusals += 1;
    if (this.#refusals > refusalsMax) return;
    if (purpose === 'first' || purpose === 'retry') this.#tries -= 1;
    else if (purpose === 'splice') this.#moves -= 1;
  }

  /** It comes from this attempt now. */
  begins({ purpose, serving: { peer, continuation }, early }: RunningAttempt): void {
    this.hasContent = true;
    if (purpose === 'splice') this.#splices += 1;
    if (this.#nodes.at(-1) !== peer) this.#nodes.push(peer);
    this.#shown ??= new Shown(continuation);
    if (early !== undefined) this.#shown.add(early);
  }

  add(delta: Delta): void {
    this.#shown?.add(delta);
  }

  /** What this attempt has told stays; another node is to go on from there. */
  spliced({ tokens, textBytes }: RunningAttempt): void {
    this.#moves += 1;
    this.#shownTokens += tokens;
    this.#earlierBytes += textBytes;
  }

  /** Its client has taken so many more bytes of text. @returns how many of them the attempt that runs has told. */
  taken(bytes: number): number {
    const before = Math.max(this.#takenBytes, this.#earlierBytes);
    this.#takenBytes += bytes;
    return Math.max(0, this.#takenBytes - before);
  }

  /** It begins again: nobody has seen anything of it. */
  restarts(): void {
    this.#moves += 1;
    this.#restarts += 1;
    this.#earlierBytes = 0;
    this.#takenBytes = 0;
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
      splices: this.#moves,
      hasContent,
      continues: this.#shown?.continues,
      isUnseen: isUnseen && this.#shownTokens === 0 && this.#restarts < restartsMax,
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
    // To ask again, as an interrupted stream invites to, would meet the same deadline.
    if (!this.isCommitted || error.code === 'DEADLINE_EXCEEDED') return error;
    return new HelixFlowError('STREAM_INTERRUPTED', {}, { cause: error });
  }

  served(): Served {
    const node = this.#nodes.at(-1);
    assert(node !== undefined, 'content comes from a node');
    return { node, digest: this.#digest, attempts: this.attempts, nodes: [...this.#nodes], splices: this.#splices };
  }
}
