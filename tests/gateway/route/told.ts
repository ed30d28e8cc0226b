/** One answer that all nodes give alike, and nodes that tell as much of it as a test wants. */

import { countDelta, deliveredTokens, nothingCounted } from '../../../protocol/counting.ts';
import type { EngineModel, Resume } from '../../../protocol/ports.ts';
import { type Generation, ScriptedEngine, scriptedModel } from '../../support/scripted-engine.ts';
import type { MeshNodeUnderTest, SmallMesh } from '../../support/small-mesh.ts';

/** Characters of one to four bytes; ids with half a character; a piece of many ids; ids behind the last text. */
const pieces: readonly (readonly [text: string, ids: readonly number[]])[] = [
  ['Grü', [11, 12]],
  ['', [13]],
  ['ß', [14]],
  [' dich,', [15, 16, 17]],
  [' 世', [18]],
  ['', [19]],
  ['', [20]],
  ['界', [21]],
  [' 👋🏽', [22, 23, 24, 25]],
  [' aa', [26]],
  [' aa', [26]],
  ['!', [27]],
];

export const wholeText = pieces.map(([text]) => text).join('');
export const piecesCount = pieces.length;

/** What the first so many pieces are. */
export function beginning(count: number): { text: string; ids: number[] } {
  const some = pieces.slice(0, count);
  return { text: some.map(([text]) => text).join(''), ids: some.flatMap(([, ids]) => ids) };
}

const hasIds = ({ continuation }: EngineModel): boolean => continuation !== 'text';

/** What all of it is counted as. */
export const wholeTokens = (model: EngineModel): number =>
  deliveredTokens(
    pieces.reduce((sum, [text, ids]) => countDelta(sum, text, hasIds(model) ? ids.length : 0), nothingCounted),
  );

/** Behind which piece an answer that goes on from there begins. */
function pieceAfter({ tokenIds, text }: Resume): number {
  for (let at = 0; at <= pieces.length; at += 1) {
    const { text: told, ids } = beginning(at);
    if (told === text && (tokenIds.length === 0 || ids.join() === tokenIds.join())) return at;
  }
  throw new Error(`nobody was told ${JSON.stringify({ tokenIds, text })}`);
}

export const modelThat = (continuation: EngineModel['continuation'], more: Partial<EngineModel> = {}): EngineModel =>
  scriptedModel('m', 'cd', { continuation, ...more });

/** An engine that tells the answer, by hand or all of it at once. */
export class TellingEngine extends ScriptedEngine {
  /** Tells all of each answer as soon as it is asked. */
  isQuick = false;
  /** What it was asked to go on from, in the order it was asked. */
  readonly resumes: (Resume | undefined)[] = [];
  readonly #at = new WeakMap<Generation, number>();
  readonly #model: EngineModel;

  constructor(model = modelThat('tokens'), slots = 2) {
    super(slots, [model]);
    this.#model = model;
  }

  override generate(...asked: Parameters<ScriptedEngine['generate']>): ReturnType<ScriptedEngine['generate']> {
    this.resumes.push(asked[0].resume);
    const answer = super.generate(...asked);
    if (this.isQuick) this.finish(this.running.at(-1));
    return answer;
  }

  /** Tells so many more pieces. */
  tell(count: number, generation = this.running[0]): void {
    if (generation === undefined) throw new Error('nothing runs here');
    const { resume } = generation.request;
    const from = this.#at.get(generation) ?? (resume === undefined ? 0 : pieceAfter(resume));
    const some = pieces.slice(from, from + count);
    this.#at.set(generation, from + some.length);
    for (const [text, ids] of some)
      if (text !== '' || hasIds(this.#model)) void generation.emit(text, hasIds(this.#model) ? ids : []);
  }

  /** Tells the rest. */
  finish(generation = this.running[0]): void {
    this.tell(piecesCount, generation);
    const all = wholeTokens(this.#model);
    generation?.finish({ completionTokens: all - (generation.request.resume?.tokens ?? 0) });
  }
}

/** A node of the mesh with such an engine. */
export interface TellingNode extends MeshNodeUnderTest {
  readonly engine: TellingEngine;
}

export const addTelling = (mesh: SmallMesh, engine = new TellingEngine()): TellingNode => ({
  ...mesh.add(engine),
  engine,
});

/** The one of the nodes that is at work, and can be heard. */
export function atWork(nodes: readonly TellingNode[]): TellingNode {
  const all = nodes.filter(({ engine, link }) => engine.running.length > 0 && !link.b.isClosed);
  const [one] = all;
  if (one === undefined || all.length > 1) throw new Error(`${all.length} nodes are at work`);
  return one;
}
