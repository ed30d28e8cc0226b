/** Changes that say only what is other than before. */

import type { z } from 'zod';
import type { Desk } from '../../ledger/desk.ts';
import { createLanes, type InLane } from '../../ledger/feed-lanes.ts';
import type { RateLimits } from '../../protocol/grants.ts';
import { givenPreferences, type Preferences } from '../../protocol/preferences.ts';
import type { limitsChange, preferencesChange } from './fields.ts';

/** Leaves out what is undefined, so that what is sent and its type agree. */
type Given<T> = { [Field in keyof T]: Exclude<T[Field], undefined> };
export const given = <T extends object>(fields: T): Given<T> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Given<T>;

type LimitsChange = z.output<typeof limitsChange>;

/** The limits as they are after a change; what it sets to null is gone. */
export function changed(limits: RateLimits, change: LimitsChange = {}): RateLimits {
  const all = Object.entries({ ...limits, ...given(change) });
  return Object.fromEntries(all.filter(([, value]) => value !== null)) as RateLimits;
}

/** What is said now, else what was; nothing where it is taken away. */
const replaced = <T>(before: T | undefined, now: T | null | undefined): T | undefined =>
  now === undefined ? before : (now ?? undefined);

/** The preferences as they are after a change; what it sets to null is gone. */
export const changedPreferences = (
  before: Preferences = {},
  change: z.output<typeof preferencesChange> = {},
): Preferences | undefined =>
  givenPreferences({
    prefer: replaced(before.prefer, change.prefer),
    region: replaced(before.region, change.region),
    allow: replaced(before.nodes?.allow, change.nodes?.allow),
    deny: replaced(before.nodes?.deny, change.nodes?.deny),
  });

const lanes = new WeakMap<Desk, InLane>();

/** A change says only what is other than before, so of one key or account there is one at a time: none undoes another. */
export function inLane<T>(desk: Desk, subject: string, work: () => Promise<T>): Promise<T> {
  const lane = lanes.get(desk) ?? createLanes();
  lanes.set(desk, lane);
  return lane(subject, work);
}
