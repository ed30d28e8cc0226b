/** Text of one answer on its way out: stop texts are held back, and token ids stay with the text they stand for. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { EngineDelta } from '../protocol/ports.ts';

/** Ids that wait for text are handed on without any once there are this many, so that a delta stays small. */
const idsHeldMax = 256;

const encoder = new TextEncoder();

/** An answer that another engine had begun, as it is taken up. */
export interface Replay {
  /** What the ids received stand for, decoded again: whole UTF-8. */
  readonly text: string;
  /** What was shown of the answer (`Resume.text`): mostly the same, or a little less. */
  readonly shown: string;
}

export interface AnswerText {
  /** True once a stop text was complete, also by what is replayed; whatever is pushed afterwards is dropped. */
  readonly stopped: boolean;
  /** Ids pushed so far. */
  readonly tokens: number;
  /**
   * Adds generated text and the ids behind it; returns what may be shown now.
   * @param text Whole UTF-8; may be empty while a character is incomplete.
   * @throws HelixFlowError RESUME_REFUSED when the text is not what was shown beyond the ids received.
   */
  push(text: string, tokenIds: readonly number[]): EngineDelta | undefined;
  /**
   * What was held back in case a stop text would follow. Call once, when the answer has ended.
   * @param tokenIds The last ids, without any text; dropped after a stop text.
   * @throws HelixFlowError RESUME_REFUSED when more was shown than the answer has.
   */
  flush(tokenIds?: readonly number[]): EngineDelta | undefined;
  /** Completion tokens as they are counted: every id, but never more than the bytes shown and one end token (design §6). */
  counted(): number;
}

/** One stop text, matched character by character (Knuth–Morris–Pratt), so that the split into pieces never matters. */
interface Matcher {
  readonly text: string;
  readonly fallback: Uint16Array;
  matched: number;
}

function createMatcher(text: string): Matcher {
  const fallback = new Uint16Array(text.length + 1);
  let length = 0;
  for (let at = 1; at < text.length; at += 1) {
    while (length > 0 && text[at] !== text[length]) length = fallback[length] ?? 0;
    if (text[at] === text[length]) length += 1;
    fallback[at + 1] = length;
  }
  return { text, fallback, matched: 0 };
}

/** True when the stop text is complete with this character. */
function advance(matcher: Matcher, character: string): boolean {
  const { text, fallback } = matcher;
  let { matched } = matcher;
  while (matched > 0 && text[matched] !== character) matched = fallback[matched] ?? 0;
  if (text[matched] === character) matched += 1;
  matcher.matched = matched;
  return matched === text.length;
}

const refused = (reason: string): HelixFlowError => new HelixFlowError('RESUME_REFUSED', { reason });

/**
 * Watches an answer for `stops`. The first stop text to be complete ends the answer where it begins;
 * of several complete at once, the longest. An id leaves with the first delta that shows any of its text, and text
 * whose ids have all left waits for the next one that leaves (or for `flush`), since text without ids is counted by its
 * length.
 *
 * With `replay` it goes on where another one was cut: text and ids of both together are those of an answer that nobody
 * cut. Nothing shown is told again or becomes part of a stop text, no id received is told again, and `tokens` and
 * `counted` begin at zero. The counts of both parts sum up to that of the whole unless ids outnumber bytes: then the
 * end token may be counted once for each part, and ids that were told before their text count for less.
 * @throws HelixFlowError RESUME_REFUSED when neither of the replay's texts begins with the other.
 */
export function createAnswerText(stops: readonly string[] = [], replay?: Replay): AnswerText {
  // Text is whole UTF-8, so half a surrogate pair can never occur in it.
  const matchers = stops.filter((stop) => stop !== '' && stop.isWellFormed()).map(createMatcher);
  let held = '';
  let ids: number[] = [];
  /** Where in `held` the text of each id begins. */
  let starts: number[] = [];
  let tokens = 0;
  let shownBytes = 0;
  let stopped = false;
  /** Shown already, though no id stands for it yet: what is pushed begins with it. */
  let ahead = '';

  function release(characters: number): EngineDelta | undefined {
    const shown = starts.findIndex((start) => start >= characters);
    let count = shown === -1 ? ids.length : shown;
    if (characters === 0 && ids.length < idsHeldMax) return undefined;
    if (ids.length - count >= idsHeldMax) count = ids.length;
    if (count === 0 && tokens > 0) return undefined;
    const delta = { text: held.slice(0, characters), tokenIds: ids.slice(0, count) };
    held = held.slice(characters);
    ids = ids.slice(count);
    starts = starts.slice(count).map((start) => start - characters);
    shownBytes += encoder.encode(delta.text).length;
    return delta;
  }

  function everything(): EngineDelta | undefined {
    if (held === '' && ids.length === 0) return undefined;
    const delta = { text: held, tokenIds: ids };
    shownBytes += encoder.encode(held).length;
    held = '';
    ids = [];
    starts = [];
    return delta;
  }

  /** How much of `held` may be shown after `text` was added to it; sets `stopped` on a match. */
  function scan(text: string): number {
    const before = held.length - text.length;
    for (let at = 0; at < text.length; at += 1) {
      let longest = 0;
      for (const matcher of matchers) {
        if (advance(matcher, text[at] as string)) longest = Math.max(longest, matcher.text.length);
      }
      if (longest > 0) {
        stopped = true;
        return before + at + 1 - longest;
      }
    }
    return held.length - matchers.reduce((most, matcher) => Math.max(most, matcher.matched), 0);
  }

  /** What of `text` was not shown before. */
  function skip(text: string): string {
    const length = Math.min(ahead.length, text.length);
    if (ahead.slice(0, length) !== text.slice(0, length)) throw refused('the answer goes on otherwise than was shown');
    ahead = ahead.slice(length);
    return text.slice(length);
  }

  function resume({ text, shown }: Replay): void {
    if (text.startsWith(shown)) {
      held = text.slice(shown.length);
      const whole = scan(held);
      if (stopped) held = held.slice(0, whole);
    } else if (shown.startsWith(text)) ahead = shown.slice(text.length);
    else throw refused('its ids stand for another text');
  }

  function add(tokenIds: readonly number[]): void {
    for (const id of tokenIds) {
      ids.push(id);
      starts.push(held.length);
    }
    tokens += tokenIds.length;
  }

  if (replay !== undefined) resume(replay);
  return {
    get stopped() {
      return stopped;
    },
    get tokens() {
      return tokens;
    },
    push(text, tokenIds) {
      if (stopped) return undefined;
      add(tokenIds);
      const fresh = skip(text);
      held += fresh;
      const shown = scan(fresh);
      if (stopped) held = held.slice(0, shown);
      if (stopped || (shown === held.length && shown > 0 && ids.length > 0)) return everything();
      return release(shown);
    },
    flush(tokenIds = []) {
      if (ahead !== '') throw refused('more was shown than the answer has');
      if (!stopped) add(tokenIds);
      return everything();
    },
    counted: () => Math.min(tokens, shownBytes + 1),
  };
}
