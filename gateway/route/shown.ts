/** What a client has of an answer, as far as another node needs it to go on: kept while the answer can be carried on. */

import { encodeResume, resumeIdsMax } from '../../protocol/messages/resume.ts';
import type { Delta } from '../../protocol/messages/session.ts';
import type { EngineModel, Resume } from '../../protocol/ports.ts';

/** Text beyond which an answer is carried on no more: longer than any honest one, and it is kept in memory. */
const textMaxUnits = 8_388_608;
/** Ids that may be ahead of the text they stand for; a unit of UTF-16 is three bytes at most, and each may take an id. */
const idsAheadMax = 16_384;
const idsPerUnit = 3;
/** So many small pieces become one: each of them costs several times its text. */
const piecesMax = 256;

/** What of a piece counts here. */
export type ShownPiece = Pick<Delta, 'text' | 'tokenIds' | 'isOpaque'>;

/** Of one request, over all its attempts. */
export class Shown {
  /** All pieces but the newest, in runs. */
  readonly #runs: string[] = [];
  #pieces: string[] = [];
  #units = 0;
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
  add({ text, tokenIds, isOpaque }: ShownPiece): void {
    if (this.#continues === undefined) return;
    if (isOpaque === true) {
      this.forget();
      return;
    }
    // An engine that tells ids tells all of them: of a mixture nobody knows which text has none.
    if (tokenIds.length === 0 && text !== '' && this.#tokenIds.length === 0) this.#continues = 'text';
    if (text !== '') this.#keep(text);
    for (const id of tokenIds) this.#tokenIds.push(id);
    const isTooMuch =
      this.#units > textMaxUnits ||
      this.#tokenIds.length > Math.min(resumeIdsMax, idsAheadMax + idsPerUnit * this.#units);
    if (isTooMuch) this.forget();
  }

  #keep(text: string): void {
    this.#units += text.length;
    this.#pieces.push(text);
    if (this.#pieces.length < piecesMax) return;
    this.#runs.push(this.#pieces.join(''));
    this.#pieces = [];
  }

  #clear(): void {
    this.#runs.length = 0;
    this.#pieces = [];
    this.#units = 0;
    this.#tokenIds.length = 0;
  }

  /** Nobody can go on with it from now on. */
  forget(): void {
    this.#continues = undefined;
    this.#clear();
  }

  /** Nothing of it is true any more: the answer begins again. */
  restart(): void {
    this.#continues = this.#most;
    this.#clear();
  }

  /** @param tokens What the pieces come to, as they were counted. */
  resume(tokens: number): Uint8Array {
    const resume: Resume = { tokenIds: this.#tokenIds, text: [...this.#runs, ...this.#pieces].join(''), tokens };
    return encodeResume(resume);
  }
}
