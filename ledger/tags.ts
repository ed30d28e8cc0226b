/** Tags: what stands for an account, key or lease where nobody shall be named (design §6). */

import type { AccountId, IssuerId, KeyId, Tag } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { Caller } from './line.ts';

/** Whom a tag may stand for. */
export interface TagOwner {
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly key: KeyId;
}

/** The keys of tags that this gateway holds: one per issuer and day, and one of its own for when it has no other. */
export interface Tags {
  /** The tags of a request's caller now; quick, no waiting. */
  callerOf(owner: TagOwner, atMs: UnixMs): Caller;
  /** The tag of an account under the key of this day; undefined where that key is not (or no more) held. */
  accountTag(issuer: IssuerId, account: AccountId, day: number): Tag | undefined;
  keyTag(issuer: IssuerId, key: KeyId, day: number): Tag | undefined;
  /** Under every key of this day: there are several where whoever draws them had lost one, and each has made tags. */
  accountTags(issuer: IssuerId, account: AccountId, day: number): readonly Tag[];
  keyTags(issuer: IssuerId, key: KeyId, day: number): readonly Tag[];
}
