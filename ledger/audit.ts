/** The audit log: who did what to whom, as a chain of JSON lines that shows every change made to it later. */

import type { UnixMs } from '../protocol/units.ts';

/** What can be done. A closed list; each is shown to operators by this name. */
export type AuditAction =
  | 'mesh.create'
  | 'mesh.handover'
  | 'mesh.restore'
  | 'issuer.revoke'
  | 'feed.forked'
  | 'feed.unfreeze'
  | 'invite.create'
  | 'invite.use'
  | 'membership.issue'
  | 'membership.renew'
  | 'member.ban'
  | 'member.unban'
  | 'account.create'
  | 'account.set'
  | 'key.create'
  | 'key.set'
  | 'key.rotate'
  | 'key.revoke'
  | 'request.refuse'
  | 'peer.refuse'
  | 'admin.request';

/** One thing that happened. No prompt, no secret, no address, no name: those who act and are acted on are references. */
export interface AuditRecord {
  readonly action: AuditAction;
  /** `key:<id>`, `peer:<id>`, `local` (whoever may use the data directory), or `none`. */
  readonly actor: string;
  /** `key:<id>`, `account:<id>`, `peer:<id>`, `invite:<id>`, `author:<id>`, `mesh:<id>`, or a route. */
  readonly object: string;
  readonly outcome: 'done' | 'refused' | 'failed';
  /** An error code, or a word of a closed list; empty when done. */
  readonly reason: string;
  /** More than 1 for refusals of one actor, object and reason within a minute that became one line. */
  readonly count?: number;
}

/** A line as it stands in the file. */
export interface AuditLine extends AuditRecord {
  /** From 0, without a gap over all files. */
  readonly number: number;
  readonly time: UnixMs;
  /** Hex sha256 of the line before, as it stands in the file; zeros for the first. */
  readonly previous: string;
}

/** Where things that happened are told; never throws, never waits. Refusals are coalesced per reason and minute. */
export interface Audit {
  note(record: AuditRecord): void;
}

/** For processes that keep none. */
export const noAudit: Audit = { note: () => {} };
