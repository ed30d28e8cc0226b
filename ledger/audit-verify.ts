/** Tells which line of the audit log is not as it was written, or is not there. */

import { type Anchor, type AuditHead, hashLine, parseLine } from './audit-chain.ts';

/** Where a line stands, for people: file, and line in it from 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
}

/**
 * The first thing that is wrong.
 * - `changed`: the line is not as it was written; where an anchor says so, lines before it may have been rewritten with it.
 * - `malformed`: it is no line of the log.
 * - `missing`: lines from `number` to `upTo` are gone.
 * - `misplaced`: it was inserted, repeated, or put in another place.
 * - `headless`: the head is gone, so nothing tells whether lines are missing at the end.
 */
export interface Finding {
  readonly fault: 'changed' | 'malformed' | 'missing' | 'misplaced' | 'headless';
  readonly number: number;
  readonly upTo?: number;
  /** Where it stands, or where it is missing; undefined at the end. */
  readonly place?: Place;
}

/** Checks lines in the order in which they stand. */
export interface Verifier {
  /** The next line; undefined as long as nothing is known to be wrong. Not to be called after a finding. */
  take(text: string, place: Place): Finding | undefined;
  /** After the last line. */
  end(): Finding | undefined;
  /** The oldest and the newest line so far. */
  readonly first: number | undefined;
  readonly last: Anchor | undefined;
}

interface Seen extends Anchor {
  readonly previous: string;
  readonly place: Place;
}

/** What is wrong with `here`, which does not follow `before`; the line after it tells which of the two to believe. */
function judge(expected: Anchor, before: Seen | undefined, here: Seen, next: Seen | undefined): Finding {
  const { number, place } = here;
  const isBelieved = next?.number === number + 1 && next.previous === here.hash;
  if (number === expected.number + 1) {
    if (next?.number === number) return { fault: 'misplaced', number, place };
    const changed = isBelieved && before !== undefined ? before : here;
    return { fault: 'changed', number: changed.number, place: changed.place };
  }
  if (number > expected.number + 1) {
    const isMoved = next !== undefined && next.number > expected.number && next.number <= number;
    if (isMoved) return { fault: 'misplaced', number, place };
    return { fault: 'missing', number: expected.number + 1, upTo: number - 1, place };
  }
  const isTwin = isBelieved && before?.number === number;
  return { fault: 'misplaced', number, place: isTwin ? before.place : place };
}

/**
 * A verifier for one log.
 * @param head What the log says of itself; undefined when that is lost.
 * @param noted Lines that somebody wrote down elsewhere.
 */
export function createVerifier(head: AuditHead | undefined, noted: readonly Anchor[] = []): Verifier {
  const start: Anchor | undefined = head && { number: head.first.number - 1, hash: head.first.previous };
  const anchors = [...noted, ...(head === undefined ? [] : [head.last])];
  let first: number | undefined;
  let before: Seen | undefined;
  /** Does not follow `before`; waits for the line after it. */
  let doubtful: Seen | undefined;

  const expectedBefore = ({ number, previous }: Seen): Anchor =>
    before ?? start ?? { number: number - 1, hash: previous };
  const isAgainst = ({ number, hash }: Seen): boolean =>
    anchors.some((anchor) => anchor.number === number && anchor.hash !== hash);
  const seenOf = (text: string, place: Place): Seen | undefined => {
    const line = parseLine(text);
    return line && { number: line.number, previous: line.previous, hash: hashLine(text), place };
  };
  return {
    take: (text, place) => {
      const seen = seenOf(text, place);
      if (doubtful !== undefined) return judge(expectedBefore(doubtful), before, doubtful, seen);
      if (seen === undefined) return { fault: 'malformed', number: ((before ?? start)?.number ?? -1) + 1, place };
      first ??= seen.number;
      const expected = expectedBefore(seen);
      if (seen.number !== expected.number + 1 || seen.previous !== expected.hash) {
        doubtful = seen;
        return undefined;
      }
      before = seen;
      return isAgainst(seen) ? { fault: 'changed', number: seen.number, place } : undefined;
    },
    end: () => {
      if (doubtful !== undefined) {
        const { number, hash, place } = doubtful;
        const isAnchored = anchors.some((anchor) => anchor.number === number && anchor.hash === hash);
        const next = isAnchored ? { number: number + 1, previous: hash, hash, place } : undefined;
        return judge(expectedBefore(doubtful), before, doubtful, next);
      }
      const last = (before ?? start)?.number ?? -1;
      if (head === undefined && before !== undefined) return { fault: 'headless', number: last };
      const newest = Math.max(start?.number ?? -1, ...anchors.map(({ number }) => number));
      if (newest > last) return { fault: 'missing', number: last + 1, upTo: newest };
      const gone = noted.find(({ number }) => number < (first ?? 0));
      return gone && { fault: 'missing', number: gone.number, upTo: gone.number };
    },
    get first() {
      return first;
    },
    get last() {
      return before && { number: before.number, hash: before.hash };
    },
  };
}
