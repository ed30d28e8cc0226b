/** The audit log: who did what to whom, as a chain of JSON lines that shows every change made to it later. */

import type { UnixMs } from '../protocol/units.ts';

/** What can be done. A closed list; each is shown to operators by this name. */
export const auditActions = [
  'mesh.create',
  'mesh.handover',
  'handover.prepare',
  'mesh.backup',
  'mesh.leave',
  'mesh.restore',
  'ledger.restore',
  'issuer.revoke',
  'feed.forked',
  'feed.unfreeze',
  'invite.create',
  'invite.use',
  'membership.issue',
  'membership.renew',
  'member.ban',
  'member.unban',
  'account.create',
  'account.set',
  'account.export',
  'account.erase',
  'price.set',
  'lease.writeoff',
  'key.create',
  'key.set',
  'key.rotate',
  'key.revoke',
  'request.refuse',
  'peer.refuse',
  'admin.request',
  // What the log says of itself: torn or missing lines found on opening, lines lost to a full disk, old files removed.
  'audit.repair',
  'audit.drop',
  'audit.trim',
] as const;

/** One of the list. */
export type AuditAction = (typeof auditActions)[number];

/** One thing that happened. No prompt, no secret, no address, no name: those who act and are acted on are references. */
export interface AuditRecord {
  readonly action: AuditAction;
  /** `key:<id>`, `peer:<id>`, `local` (whoever may use the data directory), `none`, or `many`. */
  readonly actor: string;
  /**
   * `key:<id>`, `account:<id>`, `peer:<id>`, `invite:<id>`, `issuer:<id>`, `author:<id>`, `mesh:<id>`,
   * `price:<id>`, `lease:<id>`, a route
   * (`POST /admin/v1/keys`, with the names of its parameters and not their values), `local`, `none`, or `many`.
   */
  readonly object: string;
  readonly outcome: 'done' | 'refused' | 'failed';
  /** An error code, or one word of a closed list; empty when done. */
  readonly reason: string;
  /** How many of them this line stands for, when more than 1: repetitions within a minute, or lines lost or removed. */
  readonly count?: number;
}

/** A line as it stands in the file. */
export interface AuditLine extends AuditRecord {
  /** From 0, without a gap over all files. */
  readonly number: number;
  /** When it was noted. */
  readonly time: UnixMs;
  /** Hex sha256 of the line before, as it stands in the file; zeros for the first. */
  readonly previous: string;
}

/**
 * Where things that happened are told; never throws, never waits. Repetitions of a refusal, of a failure, and of what one
 * peer has done for it, are counted for a minute and told in one line; the first of them is told at once.
 */
export interface Audit {
  note(record: AuditRecord): void;
}

/** For processes that keep none. */
export const noAudit: Audit = { note: () => {} };
