/** A connection that breaks behind any byte, in either direction: an answer is whole, or ends in an error; never is it cut silently. */

import { describe, test } from 'vitest';
import type { EngineModel } from '../../../protocol/ports.ts';
import { type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, modelThat, TellingEngine, wholeText, wholeTokens } from './told.ts';

type Direction = 'answers' | 'requests';
interface Kind {
  readonly continuation: EngineModel['continuation'];
  readonly isWhole?: boolean;
}

interface Cut {
  readonly seen: SeenCall;
  /** Bytes that got through before the first connection broke. */
  readonly bytes: number;
  readonly isCut: boolean;
}

/** An answer of which the first node's connection breaks behind so many bytes, and the second's, too, if that is told. */
async function answer(kind: Kind, direction: Direction, cuts: readonly number[]): Promise<Cut> {
  const model = modelThat(kind.continuation);
  const mesh = new SmallMesh();
  const nodes = Array.from({ length: cuts.length + 1 }, () => addTelling(mesh, new TellingEngine(model)));
  const ends = nodes.map(({ link }) => (direction === 'answers' ? link.a : link.b));
  for (const { engine } of nodes) engine.isQuick = true;
  const before = ends.map(({ bytesPassed }) => bytesPassed);
  for (const [at, bytes] of cuts.entries()) {
    const end = ends[at];
    if (end !== undefined) end.bytesLeft = bytes;
  }
  const seen = await mesh.call('m', 60_000, kind.isWhole === true ? { isWhole: true } : {});
  await mesh.pass(300);
  return {
    seen,
    bytes: (ends[0]?.bytesPassed ?? 0) - (before[0] ?? 0),
    isCut: ends[0]?.isClosed ?? false,
  };
}

const verdictOf = ({ seen: { texts, ends } }: Cut, model: EngineModel): string => {
  const text = texts.join('');
  const [end] = ends;
  if (ends.length !== 1 || end === undefined) return `${ends.length} ends`;
  if ('code' in end) return wholeText.startsWith(text) ? end.code : 'wrong text, then an error';
  if (text !== wholeText) return `done with ${JSON.stringify(text)}`;
  return end.completionTokens === wholeTokens(model) ? 'whole' : `whole, of ${end.completionTokens} tokens`;
};

/** All verdicts, behind each byte that the first node's connection carries for one answer, and before the first. */
async function everywhere(kind: Kind, direction: Direction): Promise<{ verdicts: string[]; cuts: number[] }> {
  const { bytes } = await answer(kind, direction, []);
  const verdicts = new Set<string>();
  const cuts: number[] = [];
  for (let at = 0; at <= bytes; at += 1) {
    const cut = await answer(kind, direction, [at]);
    if (cut.isCut) cuts.push(cut.bytes);
    verdicts.add(verdictOf(cut, modelThat(kind.continuation)));
  }
  return { verdicts: [...verdicts].sort(), cuts };
}

const upTo = (bytes: number): number[] => Array.from({ length: bytes + 1 }, (_, at) => at);

describe('an answer is what it should be wherever the connection breaks', () => {
  test.for<[string, Kind, Direction, verdicts: string[], bytesMin: number]>([
    ['while it comes, and goes on by ids', { continuation: 'tokens' }, 'answers', ['whole'], 170],
    ['while it comes, and goes on by its text', { continuation: 'text' }, 'answers', ['whole'], 120],
    ['while it comes, and goes on nowhere', { continuation: 'none' }, 'answers', ['STREAM_INTERRUPTED', 'whole'], 170],
    ['while it comes, and begins again unseen', { continuation: 'none', isWhole: true }, 'answers', ['whole'], 170],
    ['while it is asked for', { continuation: 'tokens' }, 'requests', ['whole'], 120],
    ['while it is asked for, and would go on nowhere', { continuation: 'none' }, 'requests', ['whole'], 120],
  ])('%s', async ([, kind, direction, verdicts, bytesMin], { expect }) => {
    const found = await everywhere(kind, direction);
    expect(found).toEqual({ verdicts, cuts: upTo(found.cuts.length - 1) });
    expect(found.cuts.length).toBeGreaterThan(bytesMin);
  });

  test('twice', async ({ expect }) => {
    const { bytes } = await answer({ continuation: 'tokens' }, 'answers', []);
    const verdicts = new Set<string>();
    let splices = 0;
    for (let first = 1; first <= bytes; first += 5) {
      for (let second = 1; second <= bytes; second += 5) {
        const cut = await answer({ continuation: 'tokens' }, 'answers', [first, second]);
        verdicts.add(verdictOf(cut, modelThat('tokens')));
        for (const end of cut.seen.ends) if ('served' in end) splices = Math.max(splices, end.served.splices);
      }
    }
    expect([[...verdicts], splices]).toEqual([['whole'], 2]);
  });
});
