/** What a key, or a request, asks of the nodes that serve it: the shape that claims, entries and clients' fields share. */

import { z } from 'zod';
import { isPeerId, type PeerId } from './ids.ts';
import { regionMaxChars } from './messages/session-fields.ts';

/** Wishes of a request or a key. `nodes` binds; the others are kept to as far as there is a choice. */
export interface Preferences {
  /** `price`: the cheapest of the nodes that are not much later than the best. Absent: the soonest. */
  readonly prefer?: Prefer;
  /** Only these, and none of those. An absent list says nothing; an empty `allow` allows nobody. */
  readonly nodes?: { readonly allow?: readonly PeerId[]; readonly deny?: readonly PeerId[] };
  /** Nodes whose offer names it, while any of them may take the request. */
  readonly region?: string;
}

/** What counts first, in the order of the wire. */
export const preferred = ['latency', 'price'] as const;
/** What counts first among nodes that may take a request. */
export type Prefer = (typeof preferred)[number];

/** Nodes that each list of a key may name: with all of them its text still fits into a header. */
export const keyNodesMax = 32;

/** True for what may name a region: at most 32 of a-z, 0-9 and the dash. */
export const isRegion = (text: string): boolean => text.length <= regionMaxChars && /^[a-z0-9-]+$/.test(text);

/** Wishes in one piece; what is undefined was not said. */
export interface Wishes {
  readonly prefer?: Prefer | undefined;
  readonly region?: string | undefined;
  readonly allow?: readonly PeerId[] | undefined;
  readonly deny?: readonly PeerId[] | undefined;
}

/** Only what was given; undefined where nothing was. A list of nobody denies nobody, and is left out. */
export function givenPreferences({ prefer, region, allow, deny }: Wishes): Preferences | undefined {
  const nodes = {
    ...(allow === undefined ? {} : { allow }),
    ...(deny === undefined || deny.length === 0 ? {} : { deny }),
  };
  const given = {
    ...(prefer === undefined ? {} : { prefer }),
    ...(region === undefined ? {} : { region }),
    ...(Object.keys(nodes).length === 0 ? {} : { nodes }),
  };
  return Object.keys(given).length === 0 ? undefined : given;
}

/** What a region looks like. */
export const regionText = `at most ${regionMaxChars} of a-z, 0-9 and -`;
/** Each part of `Preferences` as it is read from outside. */
export const preferShape = z.enum(preferred);
export const regionShape = z.string().refine(isRegion, `expected ${regionText}`).meta({ description: regionText });
/** A list of nodes, of at most `max`. */
export const nodesShape = (max: number) =>
  z
    .array(z.custom<PeerId>(isPeerId, 'expected a peer id').meta({ description: 'a peer id' }))
    .max(max)
    .readonly();

/** The shape of `Preferences`, strict; for claims and for whoever reads them from people. @param nodesMax Of each list. */
export const preferencesShape = (nodesMax: number) => {
  const list = nodesShape(nodesMax).optional();
  return z
    .strictObject({
      prefer: preferShape.optional(),
      region: regionShape.optional(),
      nodes: z.strictObject({ allow: list, deny: list }).optional(),
    })
    .transform(({ nodes, ...wishes }): Preferences | undefined => givenPreferences({ ...wishes, ...nodes }));
};
