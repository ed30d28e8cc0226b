/** Text of one answer on its way out: stop texts are held back, and token ids stay with the text they stand for. */

import type { EngineDelta } from '../protocol/ports.ts';

/** Ids that wait for text are handed on without any once there are this many, so that a delta stays small. */
const idsHeldMax = 256;

const encoder = new TextEncoder();

export interface AnswerText {
  /** True once a stop text was complete; whatever is pushed afterwards is dropped. */
  readonly stopped: boolean;
  /** Ids pushed so far. */
  readonly tokens: number;
  /**
   * Adds generated text and the ids behind it; returns what may be shown now.
   * @param text Whole UTF-8; may be empty while a character is incomplete.
   */
  push(text: string, tokenIds: readonly number[]): EngineDelta | undefined;
  /** What was held back in case a stop text would follow. Call once, when the answer has ended. */
  flush(): EngineDelta | undefined;
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

/**
 * Watches an answer for `stops`. The first stop text to be complete ends the answer where it begins;
 * of several complete at once, the longest. An id leaves with the first delta that shows any of its text.
 */
export function createAnswerText(stops: readonly string[] = []): AnswerText {
  // Text is whole UTF-8, so half a surrogate pair can never occur in it.
  const matchers = stops.filter((stop) => stop !== '' && stop.isWellFormed()).map(createMatcher);
  let held = '';
  let ids: number[] = [];
  /** Where in `held` the text of each id begins. */
  let starts: number[] = [];
  let tokens = 0;
  let shownBytes = 0;
  let stopped = false;

  function release(characters: number): EngineDelta | undefined {
    const shown = starts.findIndex((start) => start >= characters);
    let count = shown === -1 ? ids.length : shown;
    if (characters === 0 && ids.length < idsHeldMax) return undefined;
    if (ids.length - count >= idsHeldMax) count = ids.length;
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

  return {
    get stopped() {
      return stopped;
    },
    get tokens() {
      return tokens;
    },
    push(text, tokenIds) {
      if (stopped) return undefined;
      for (const id of tokenIds) {
        ids.push(id);
        starts.push(held.length);
      }
      tokens += tokenIds.length;
      held += text;
      const shown = scan(text);
      if (!stopped) return shown === held.length && shown > 0 ? everything() : release(shown);
      held = held.slice(0, shown);
      return everything();
    },
    flush: everything,
    counted: () => Math.min(tokens, shownBytes + 1),
  };
}
