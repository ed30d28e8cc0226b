/** What an operation of the admin API is, and what it works on. */

import type { z } from 'zod';
import type { AuditLine } from '../../ledger/audit.ts';
import type { Desk } from '../../ledger/desk.ts';
import type { Ledger } from '../../ledger/ledger.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { KeyGrant, KeyRole, NetworkKind } from '../../protocol/grants.ts';
import type { MeshId, PeerId } from '../../protocol/ids.ts';
import type { Member } from '../../protocol/peer/member.ts';
import type { Clock, Contact, Store } from '../../protocol/ports.ts';
import type { Traces } from '../route/trace.ts';
import type { Records } from './records.ts';

/** What a check of the audit log came to. */
export interface AuditVerdict {
  readonly ok: boolean;
  /** Lines that were checked. */
  readonly lines: number;
  /** Number of the first line that does not follow from the one before it. */
  readonly brokenAt?: number;
  /** What is wrong there; empty when nothing is. */
  readonly reason: string;
}

/** The audit log, read. */
export interface AuditReader {
  /** The newest lines, oldest first. @throws HelixFlowError STORE_FAILED */
  tail(lines: number): Promise<readonly AuditLine[]>;
  /** Follows the chain over every file that is kept. @throws HelixFlowError STORE_FAILED */
  verify(): Promise<AuditVerdict>;
}

/** What operations work on: one gateway. */
export interface AdminContext {
  readonly self: PeerId;
  readonly meshId: MeshId;
  readonly network: NetworkKind;
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly ledger: Pick<Ledger, 'standing' | 'status' | 'authorsOf' | 'heads'>;
  /** The rows of the feeds, for whoever checks them. */
  readonly feeds: Pick<Store, 'range'>;
  readonly member: Pick<Member, 'admitted'>;
  /** Where this gateway holds an issuer's key. */
  readonly desk: Desk | undefined;
  readonly audit: AuditReader;
  /** What was used and what it costs; undefined on the directory of a node. */
  readonly records?: Records | undefined;
  /** Where the newest requests went; undefined where none are served. */
  readonly traces?: Pick<Traces, 'get' | 'newest'> | undefined;
  /** As `helixflow status` shows it. */
  readonly status: () => unknown;
  /** Where the bearer of an invite may reach this mesh, unless the request says otherwise. */
  readonly contacts: () => readonly Contact[];
}

/** Who asks: whoever may use the data directory, or the bearer of a key that was checked. */
export type Caller = 'local' | KeyGrant;

/** As the audit log names a caller. */
export const actorOf = (caller: Caller): string => (caller === 'local' ? 'local' : `key:${caller.keyId}`);

export type AdminMethod = 'GET' | 'POST' | 'PATCH' | 'DELETE';

/** One row of the table. */
export interface Operation<Input extends z.ZodType = z.ZodType, Output = unknown> {
  readonly method: AdminMethod;
  /** Below `/admin/v1/`; a segment that begins with a colon is the field of the input that stands there. */
  readonly path: string;
  /** Keys that may ask for it over TCP. Whoever may use the data directory may ask for everything. */
  readonly roles: readonly KeyRole[];
  /** For documents. */
  readonly about: string;
  /** All that it takes, in one flat object: what the path does not carry is in the query (GET) or the body. */
  readonly input: Input;
  /** @throws HelixFlowError as its row in `docs/admin-api.md` says. */
  readonly run: (context: AdminContext, input: z.output<Input>, caller: Caller) => Output | Promise<Output>;
}

/** Lets each row keep the types of its own. */
export const operation = <Input extends z.ZodType, Output>(row: Operation<Input, Output>): Operation<Input, Output> =>
  row;

export const watchers: readonly KeyRole[] = ['operator', 'admin'];
export const admins: readonly KeyRole[] = ['admin'];

/**
 * The issuer's desk, for those whom it answers to: whoever may use the data directory, and keys of that issuer or of
 * one that it took over from. Other issuers of the mesh have no say in what this one grants.
 * @throws HelixFlowError ISSUER_MISSING
 */
export function deskFor({ desk, ledger, meshId }: AdminContext, caller: Caller): Desk {
  const isTheirs = desk !== undefined && (caller === 'local' || answersTo(desk, caller, ledger));
  if (!isTheirs) throw new HelixFlowError('ISSUER_MISSING', { meshId });
  return desk;
}

function answersTo(desk: Desk, { issuer }: KeyGrant, ledger: Pick<Ledger, 'authorsOf'>): boolean {
  const [own] = ledger.authorsOf(desk.issuer);
  return issuer === desk.issuer || (own !== undefined && ledger.authorsOf(issuer).includes(own));
}
