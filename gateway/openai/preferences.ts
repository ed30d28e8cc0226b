/** The `helixflow` field of a request: what it asks of the nodes that serve it. */

import { z } from 'zod';
import {
  givenPreferences,
  nodesShape,
  type Preferences,
  preferShape,
  regionShape,
} from '../../protocol/preferences.ts';
import { issueError, printPath, unsupported } from './refuse.ts';

/** Nodes that each list of a request may name. */
const requestNodesMax = 64;
const list = nodesShape(requestNodesMax).nullish();
const shape = z.strictObject({
  prefer: preferShape.nullish(),
  region: regionShape.nullish(),
  nodes: z.strictObject({ allow: list, deny: list }).nullish(),
});
const fieldMaxChars = 64;

/**
 * Reads the field; `null` counts as absent there, too. Of what nobody knows there nothing is ignored: it would be a wish
 * that is not kept.
 * @throws HelixFlowError REQUEST_UNSUPPORTED for a field that is unknown, REQUEST_MALFORMED; both name it.
 */
export function readPreferences(value: unknown): Preferences | undefined {
  if (value === undefined || value === null) return undefined;
  const parsed = shape.safeParse(value);
  if (!parsed.success) throw refusalOf(parsed.error, value);
  const { prefer, region, nodes } = parsed.data;
  return givenPreferences({
    prefer: prefer ?? undefined,
    region: region ?? undefined,
    allow: nodes?.allow ?? undefined,
    deny: nodes?.deny ?? undefined,
  });
}

function refusalOf(error: z.ZodError, value: unknown): Error {
  const unknown = error.issues.find((issue) => issue.code === 'unrecognized_keys');
  if (unknown === undefined) return issueError(error, value, ['helixflow']);
  const param = printPath(['helixflow', ...unknown.path, (unknown.keys[0] ?? '').slice(0, fieldMaxChars)]);
  return unsupported(param, 'there is no such preference; leave it out');
}
