/** Stop texts and token ids of an answer, however it is cut into pieces. */

import '../../support/seed.ts';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createAnswerText } from '../../../node/answer-text.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { EngineDelta } from '../../../protocol/ports.ts';

/** Pieces of text as tokens 0, 1, 2 …; what comes out, flush included. */
function feed(pieces: readonly string[], stops: readonly string[]) {
  const text = createAnswerText(stops);
  const deltas: EngineDelta[] = [];
  for (const [id, piece] of pieces.entries()) {
    if (text.stopped) break;
    const delta = text.push(piece, [id]);
    if (delta !== undefined) deltas.push(delta);
  }
  const rest = text.flush();
  if (rest !== undefined) deltas.push(rest);
  const shown = deltas.map((delta) => delta.text).join('');
  return { deltas, shown, ids: deltas.flatMap((delta) => delta.tokenIds), text };
}

/** The first stop text to be complete ends the answer where it begins; the longest of those complete at once. */
function cutAtStop(text: string, stops: readonly string[]): string {
  for (let end = 1; end <= text.length; end += 1) {
    const matched = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (matched.length > 0) return text.slice(0, end - Math.max(...matched));
  }
  return text;
}

/** Few letters, so that stop texts, and beginnings of them, occur often. */
const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '😀'), maxLength: 40 });
const stopTexts = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'é', '😀'), minLength: 1, maxLength: 5 }), {
  maxLength: 4,
});

/** Cuts between characters, never inside one. */
const split = (text: string, sizes: readonly number[]): string[] => {
  const characters = [...text];
  const pieces: string[] = [];
  for (let at = 0, index = 0; at < characters.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    pieces.push(characters.slice(at, at + size).join(''));
    at += size;
  }
  return pieces;
};

describe('stop texts', () => {
  test('end the answer at the same place for every split, and are never shown', ({ expect }) => {
    fc.assert(
      fc.property(
        letters,
        stopTexts,
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }),
        (text, stops, sizes) => {
          const { shown, text: state } = feed(split(text, sizes), stops);
          const expected = cutAtStop(text, stops);
          expect(shown).toBe(expected);
          expect(state.stopped).toBe(expected !== text || stops.some((stop) => text.endsWith(stop)));
        },
      ),
    );
  });

  test('hold back only what could become one', ({ expect }) => {
    const text = createAnswerText(['\nUser:']);
    expect(text.push('Hello', [1])).toEqual({ text: 'Hello', tokenIds: [1] });
    expect(text.push(' you\nU', [2])).toEqual({ text: ' you', tokenIds: [2] });
    expect(text.push('se', [3])).toBeUndefined();
    expect(text.push(' it', [4])).toEqual({ text: '\nUse it', tokenIds: [3, 4] });
  });

  test('half a character is no stop text', ({ expect }) => {
    expect(feed(['a😁b'], ['\ude01']).shown).toBe('a😁b');
  });

  test('cost the same for the worst of them', ({ expect }) => {
    const stops = Array.from({ length: 16 }, (_, index) => `${'a'.repeat(1_000)}${index}`);
    const { shown } = feed(
      Array.from({ length: 20_000 }, () => 'a'),
      stops,
    );
    expect(shown.length).toBe(20_000);
  });
});

describe('token ids', () => {
  test('all leave, in order, each no later than the first of its text', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 20 }), stopTexts, (pieces, stops) => {
        const { deltas, ids, text } = feed(pieces, stops);
        expect(ids).toEqual(pieces.slice(0, text.tokens).map((_, id) => id));
        let shownChars = 0;
        const gone = new Set<number>();
        for (const delta of deltas) {
          for (const id of delta.tokenIds) gone.add(id);
          shownChars += delta.text.length;
          let from = 0;
          for (const [id, piece] of pieces.slice(0, text.tokens).entries()) {
            if (piece !== '' && from < shownChars) expect(gone.has(id)).toBe(true);
            from += piece.length;
          }
        }
      }),
    );
  });

  test('without text travel with the next text', ({ expect }) => {
    const text = createAnswerText();
    expect(text.push('', [1])).toBeUndefined();
    expect(text.push('', [2])).toBeUndefined();
    expect(text.push('x', [3])).toEqual({ text: 'x', tokenIds: [1, 2, 3] });
    expect(text.push('', [4])).toBeUndefined();
    expect(text.flush()).toEqual({ text: '', tokenIds: [4] });
    expect(text.flush()).toBeUndefined();
  });

  test('do not pile up when no text comes', ({ expect }) => {
    const { deltas, ids } = feed(
      Array.from({ length: 1_000 }, () => ''),
      [],
    );
    expect(ids.length).toBe(1_000);
    expect(Math.max(...deltas.map((delta) => delta.tokenIds.length))).toBeLessThanOrEqual(256);
  });

  test('without text may come at the end, but not after a stop text', ({ expect }) => {
    const text = createAnswerText(['stop']);
    expect(text.push('a st', [1])).toEqual({ text: 'a ', tokenIds: [1] });
    expect(text.flush([2])).toEqual({ text: 'st', tokenIds: [2] });
    const stopped = createAnswerText(['stop']);
    expect(stopped.push('stop', [1])).toEqual({ text: '', tokenIds: [1] });
    expect(stopped.flush([2])).toBeUndefined();
  });

  test('bring the text of earlier ones with them, since text alone would count by its length', ({ expect }) => {
    const text = createAnswerText(['cd']);
    expect(text.push('abc', [1])).toEqual({ text: 'ab', tokenIds: [1] });
    expect(text.push('c', [2])).toBeUndefined();
    expect(text.push('x', [3])).toEqual({ text: 'ccx', tokenIds: [2, 3] });
  });

  test('count no more than the bytes shown and one end token', ({ expect }) => {
    expect(feed(['a', 'b', ''], []).text.counted()).toBe(3);
    expect(feed(['', '', 'a', ''], []).text.counted()).toBe(2);
    expect(feed(['é', '', ''], []).text.counted()).toBe(3);
    expect(feed(['st', 'op'], ['stop']).text.counted()).toBe(1);
  });
});

describe('an answer that is taken up', () => {
  const codeOf = (work: () => unknown): unknown => {
    try {
      return work();
    } catch (error) {
      return isHelixFlowError(error) ? error.code : error;
    }
  };

  test('begins after what was shown, and counts from there', ({ expect }) => {
    const text = createAnswerText([], { text: 'Hello you', shown: 'Hello' });
    expect(text.push(' there', [7])).toEqual({ text: ' you there', tokenIds: [7] });
    expect(text.flush()).toBeUndefined();
    expect([text.tokens, text.counted()]).toEqual([1, 1]);
  });

  test('has stopped where what was received says so, and shows what is missing before it', ({ expect }) => {
    const text = createAnswerText(['STOP'], { text: 'a bSTOP', shown: 'a ' });
    expect(text.stopped).toBe(true);
    expect(text.push('more', [9])).toBeUndefined();
    expect(text.flush()).toEqual({ text: 'b', tokenIds: [] });
    expect(text.counted()).toBe(0);
  });

  test('is refused where the ids stand for another text', ({ expect }) => {
    expect(codeOf(() => createAnswerText([], { text: 'abc', shown: 'abd' }))).toBe('RESUME_REFUSED');
    expect(codeOf(() => createAnswerText([], { text: '', shown: 'abd' }).push('abx', [1]))).toBe('RESUME_REFUSED');
  });
});
