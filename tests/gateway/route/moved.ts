/** Calls whose nodes are lost in mid-stream, step by step. */

import { type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, atWork, modelThat, TellingEngine, type TellingNode } from './told.ts';

export interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: TellingNode[];
  readonly seen: SeenCall;
}

/** A call at so many nodes of this model. */
export async function begin(
  nodes: number,
  more: Parameters<SmallMesh['call']>[2] = {},
  model = modelThat('tokens'),
): Promise<Under> {
  const mesh = new SmallMesh();
  const all = Array.from({ length: nodes }, () => addTelling(mesh, new TellingEngine(model)));
  return { mesh, nodes: all, seen: await mesh.call('m', 60_000, more) };
}

/** The node at work tells so many pieces, and is lost. */
export async function tellAndCut({ mesh, nodes }: Under, pieces: number): Promise<TellingNode> {
  const node = atWork(nodes);
  node.engine.tell(pieces);
  await mesh.settle();
  node.link.cut();
  await mesh.settle();
  return node;
}

/** The node at work tells the rest. */
export async function finish({ mesh, nodes }: Under): Promise<TellingNode> {
  const node = atWork(nodes);
  node.engine.finish();
  await mesh.settle();
  return node;
}

/** Who left which line: the attempt's node, the first attempt, how it ended, and what it counts. */
export const linesOf = ({ mesh }: Pick<Under, 'mesh'>): unknown[] =>
  mesh.accounting.lines.map(({ start, end }) => [
    start.node,
    start.first,
    end?.outcome,
    end?.promptTokens,
    end?.completionTokens,
  ]);
