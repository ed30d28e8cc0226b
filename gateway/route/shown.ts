/** What a client has of an answer, as far as another node needs it to go on: kept while the answer can be carried on. */

import { encodeResume } from '../../protocol/messages/resume.ts';
import type { Delta } from '../../protocol/messages/session.ts';
import type { EngineModel, Resume } from '../../protocol/ports.ts';

/** Of one request, over all its attempts. */
export class Shown {
  readonly #pieces: string[] = [];
  readonly #tokenIds: number[] = [];
  readonly #most: 'tokens' | 'text' | undefined;
  #continues: 'tokens' | 'text' | undefined;

  /** @param continuation What the nodes of the request's digest can go on from. */
  constructor(continuation: EngineModel['continuation']) {
    this.#most = continuation === 'none' ? undefined : continuation;
    this.#continues = this.#most;
  }

  /** From what another node can go on; undefined where none can. */
  get continues(): 'tokens' | 'text' | undefined {
    return this.#continues;
  }

  /** A piece has been taken over. */
  add({ text, tokenIds, isOpaque }: Delta): void {
    if (this.#continues === undefined) return;
    if (isOpaque === true) {
      this.forget();
      return;
    }
    // An engine that tells ids tells all of them: of a mixture nobody knows which text has none.
    if (tokenIds.length === 0 && text !== '' && this.#tokenIds.length === 0) this.#continues = 'text';
    if (text !== '') this.#pieces.push(text);
    for (const id of tokenIds) this.#tokenIds.push(id);
  }

  /** Nobody can go on with it from now on. */
  forget(): void {
    this.#continues = undefined;
    this.#pieces.length = 0;
    this.#tokenIds.length = 0;
  }

  /** Nothing of it is true any more: the answer begins again. */
  restart(): void {
    this.#continues = this.#most;
    this.#pieces.length = 0;
    this.#tokenIds.length = 0;
  }

  /** @param tokens What the pieces come to, as they were counted. */
  resume(tokens: number): Uint8Array {
    const resume: Resume = { tokenIds: this.#tokenIds, text: this.#pieces.join(''), tokens };
    return encodeResume(resume);
  }
}
