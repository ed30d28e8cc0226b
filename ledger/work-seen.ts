/** Which attempts of a gateway a statement has covered: a bit for each, by run and serial, so that no line counts twice. */

import type { ProcessId } from '../protocol/ids.ts';

/** Serials in one piece; its bits are 128 bytes. */
export const pieceSerials = 1_024;
export const pieceBytes = pieceSerials / 8;
/** Pieces kept of one gateway: four million attempts. */
const piecesMax = 4_096;

/** The bits of 1,024 serials of a run, from `number` times as many on. */
export interface SeenPiece {
  readonly run: ProcessId;
  readonly number: number;
  readonly bits: Uint8Array;
}

const nameOf = (run: ProcessId, number: number): string => `${run}.${number}`;

/** Covered attempts of one gateway. The pieces that were used longest ago go; what they held counts as covered. */
export class SeenWork {
  readonly #pieces = new Map<string, SeenPiece>();
  readonly #changed = new Map<string, SeenPiece>();
  readonly #gone: SeenPiece[] = [];
  /** Of each run that lost a piece, the serial below which all count as covered. */
  readonly #floors = new Map<ProcessId, number>();

  /** What was on disk, in the order of runs and numbers. */
  load(pieces: readonly SeenPiece[]): void {
    for (const piece of pieces) this.#pieces.set(nameOf(piece.run, piece.number), piece);
    if (pieces.length < piecesMax) return;
    for (const { run, number } of pieces) if (!this.#floors.has(run)) this.#floors.set(run, number * pieceSerials);
  }

  has(run: ProcessId, serial: number): boolean {
    if (serial < (this.#floors.get(run) ?? 0)) return true;
    const piece = this.#pieces.get(nameOf(run, Math.floor(serial / pieceSerials)));
    const at = serial % pieceSerials;
    return piece !== undefined && ((piece.bits[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }

  add(run: ProcessId, serial: number): void {
    const number = Math.floor(serial / pieceSerials);
    const name = nameOf(run, number);
    const piece = this.#pieces.get(name) ?? { run, number, bits: new Uint8Array(pieceBytes) };
    const at = serial % pieceSerials;
    piece.bits[at >> 3] = (piece.bits[at >> 3] ?? 0) | (1 << (at & 7));
    // The order of the map is that of use.
    this.#pieces.delete(name);
    this.#pieces.set(name, piece);
    this.#changed.set(name, piece);
    if (this.#pieces.size > piecesMax) this.#forget();
  }

  #forget(): void {
    const oldest = this.#pieces.entries().next().value;
    if (oldest === undefined) return;
    const [name, piece] = oldest;
    this.#pieces.delete(name);
    this.#changed.delete(name);
    this.#gone.push(piece);
    const floor = Math.max(this.#floors.get(piece.run) ?? 0, (piece.number + 1) * pieceSerials);
    this.#floors.delete(piece.run);
    this.#floors.set(piece.run, floor);
    const [first] = this.#floors.keys();
    if (this.#floors.size > piecesMax && first !== undefined) this.#floors.delete(first);
  }

  /** What the disk lacks, since the call before. */
  takeChanges(): { readonly changed: readonly SeenPiece[]; readonly gone: readonly SeenPiece[] } {
    const changed = [...this.#changed.values()];
    this.#changed.clear();
    return { changed, gone: this.#gone.splice(0) };
  }
}
