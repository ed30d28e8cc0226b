/** Who is let in by an invite, and who stays: the issuer's side of admission, written down before anything leaves. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { type Credentials, issuerIdOf, type Membership, membershipLifetimeMs } from '../protocol/grants.ts';
import type { AuthorId, IssuerId, PeerId } from '../protocol/ids.ts';
import { type Invite, ownerBy } from '../protocol/invites.ts';
import { type IssuerRecord, issueCredentials, type MeshRecord } from '../protocol/mesh.ts';
import type { Admitter } from '../protocol/peer/admit.ts';
import type { Clock, Log, Tokens } from '../protocol/ports.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { Audit, AuditAction, AuditRecord } from './audit.ts';
import { authorIdOf } from './block.ts';
import type { MemberEntry } from './entry.ts';
import type { Ledger } from './ledger.ts';

export interface AdmitterDeps {
  readonly ledger: Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots' | 'holdsBefore'>;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly audit: Audit;
  readonly log: Log;
}

export interface AdmitterOptions {
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey'>;
  readonly issuer: IssuerRecord;
}

/** A membership that was written with this much of its time left need not be written again. */
const freshShare = 0.9;

type Member = Pick<Membership, 'peer' | 'role' | 'owner'>;
type Note = (action: AuditAction, object: string, outcome?: AuditRecord['outcome'], reason?: string) => void;

const unavailable = (reason: string, cause?: HelixFlowError): HelixFlowError =>
  new HelixFlowError('ADMISSION_UNAVAILABLE', { reason }, { cause });

class LedgerAdmitter implements Admitter {
  readonly #deps: AdmitterDeps;
  readonly #options: AdmitterOptions;
  readonly #author: AuthorId;
  /** The last exchange of each invite: the next one waits for it, so that two peers cannot take one use. */
  readonly #exchanges = new Map<string, Promise<unknown>>();

  constructor(deps: AdmitterDeps, options: AdmitterOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#author = authorIdOf(options.issuer.key.publicKey);
  }

  /** Nobody, once the root has named a successor: what that one wrote may not be known here. */
  handles(issuer: IssuerId): boolean {
    const { roots } = this.#deps.ledger;
    const isInOffice = !roots.isRevoked(issuerIdOf(this.#options.issuer.key.publicKey));
    return isInOffice && !roots.isRevoked(issuer) && this.#deps.ledger.authorsOf(issuer).at(-1) === this.#author;
  }

  async admit(invite: Invite, joiner: PeerId): Promise<Credentials> {
    // Uses that nobody counts are nothing to wait for.
    const turn = invite.uses === 0 ? `${invite.inviteId}/${joiner}` : invite.inviteId;
    const exchange = (): Promise<Credentials> => this.#exchange(invite, joiner);
    const mine = (this.#exchanges.get(turn) ?? Promise.resolve()).then(exchange, exchange);
    this.#exchanges.set(turn, mine);
    try {
      return await mine;
    } finally {
      if (this.#exchanges.get(turn) === mine) this.#exchanges.delete(turn);
    }
  }

  async #exchange(invite: Invite, joiner: PeerId): Promise<Credentials> {
    const { inviteId, issuer, role } = invite;
    const owner = ownerBy(invite, joiner);
    const note = this.#noteFor(joiner);
    const refuse = (word: string, reason: string): never => {
      note('invite.use', `invite:${inviteId}`, 'refused', word);
      throw new HelixFlowError('INVITE_INVALID', { reason });
    };
    if (this.#deps.ledger.roots.isRevoked(issuer)) refuse('taken-back', 'its issuer was taken back');
    if (!this.handles(issuer)) throw unavailable('this gateway does not hold the key of the issuer');
    const failed = (code: string): void => note('membership.issue', `peer:${joiner}`, 'failed', code);
    await this.#ready(failed);
    if (!this.#deps.ledger.holdsBefore(issuer)) throw unavailable('whom its issuer admitted is not all known here yet');
    const refuseBanned = (): void => {
      if (this.#deps.ledger.standing.isBanned(joiner)) refuse('banned', 'this peer has been banned');
    };
    refuseBanned();
    if (invite.uses === 0 && role !== 'node') refuse('unlimited', 'only nodes are let in without a number');
    const isNew = !this.#admittedBy(invite).includes(joiner);
    if (isNew && !this.#hasRoom(invite)) refuse('used-up', 'it has been used');
    const member = { peer: joiner, role, owner };
    const nowMs = await this.#write(member, inviteId, failed);
    // Another process, or another admitter of this one, may have written in between, or what was lost came back while
    // the ledger waited for it: the feed's order decides.
    refuseBanned();
    if (!this.#isAmongFirst(invite, joiner)) refuse('used-up', 'it has been used');
    if (isNew) note('invite.use', `invite:${inviteId}`);
    return await this.#sign(member, nowMs, () => note('membership.issue', `peer:${joiner}`));
  }

  /** Peers that it admitted, those that did so first in front; by a predecessor's entries as well as our own. */
  #admittedBy({ inviteId, issuer }: Invite): readonly PeerId[] {
    const { ledger } = this.#deps;
    const [first, ...others] = ledger.authorsOf(issuer).map((author) => ledger.standing.admittedBy(inviteId, author));
    if (others.every((peers) => peers.length === 0)) return first ?? [];
    return [...new Set([first ?? [], ...others].flat())];
  }

  #hasRoom(invite: Invite): boolean {
    return invite.uses === 0 || this.#admittedBy(invite).length < invite.uses;
  }

  #isAmongFirst(invite: Invite, joiner: PeerId): boolean {
    if (invite.uses === 0) return true;
    const rank = this.#admittedBy(invite).indexOf(joiner);
    return rank >= 0 && rank < invite.uses;
  }

  async renew(current: Membership): Promise<Credentials> {
    const { peer, role, owner, issuer } = current;
    const note = this.#noteFor(peer);
    const check = (): void => {
      const { standing, roots } = this.#deps.ledger;
      const isBanned = standing.isBanned(peer);
      if (!isBanned && !roots.isRevoked(issuer)) return;
      note('membership.renew', `peer:${peer}`, 'refused', isBanned ? 'banned' : 'taken-back');
      throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: isBanned ? 'the peer is banned' : 'it was taken back' });
    };
    check();
    if (!this.handles(issuer)) throw unavailable('this gateway does not hold the key of the issuer');
    const member = { peer, role, owner };
    const failed = (code: string): void => note('membership.renew', `peer:${peer}`, 'failed', code);
    await this.#ready(failed);
    check();
    const nowMs = await this.#write(member, '', failed);
    // It may have been taken back while that was written.
    check();
    return await this.#sign(member, nowMs, () => note('membership.renew', `peer:${peer}`));
  }

  /** Nobody is judged before it is known, as far as anyone can tell, what this issuer wrote before it started. */
  #ready(failed: (code: string) => void): Promise<void> {
    return this.#append([], failed);
  }

  async #append(entries: readonly MemberEntry[], failed: (code: string) => void): Promise<void> {
    try {
      await this.#deps.ledger.append('issuer', entries);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      failed(error.code);
      // Why the ledger cannot write now is this gateway's affair; whoever asked may try again.
      throw unavailable('the issuer cannot write now', error);
    }
  }

  #noteFor(peer: PeerId): Note {
    return (action, object, outcome = 'done', reason = '') =>
      this.#deps.audit.note({ action, actor: `peer:${peer}`, object, outcome, reason });
  }

  /** A peer that asks again and again shall not fill the feed. */
  #isWritten({ peer, role, owner }: Member, invite: string): boolean {
    const { standing } = this.#deps.ledger;
    if (invite !== '' && !standing.admittedBy(invite, this.#author).includes(peer)) return false;
    const known = standing.member(peer, this.#author);
    const freshFromMs = this.#deps.clock.wallMs() + freshShare * membershipLifetimeMs;
    return known?.role === role && known.owner === owner && known.expiresMs >= freshFromMs;
  }

  /** Writes that the peer is a member. @returns the moment from which it is one. */
  async #write(member: Member, invite: string, failed: (code: string) => void): Promise<UnixMs> {
    const { ledger, clock } = this.#deps;
    const nowMs = clock.wallMs();
    if (this.#isWritten(member, invite)) return nowMs;
    const expiresMs = unixMs(nowMs + membershipLifetimeMs);
    const known = ledger.standing.member(member.peer, this.#author);
    const from = invite === '' ? (known?.invite ?? '') : invite;
    await this.#append([{ kind: 'member', invite: from, ...member, expiresMs }], failed);
    return nowMs;
  }

  async #sign(member: Member, nowMs: UnixMs, note: () => void): Promise<Credentials> {
    const { tokens, log } = this.#deps;
    const credentials = await issueCredentials(this.#options, member, { tokens, nowMs });
    log.info('admission.admitted', { peer: member.peer, role: member.role, owner: member.owner });
    note();
    return credentials;
  }
}

/**
 * Admits and renews with an issuer's key over the ledger. A `member` entry is on disk before a membership leaves, and one
 * peer's repeats add no more than one entry in three days. Errors are those of `Admitter`, nothing else of the ledger's.
 */
export const createAdmitter = (deps: AdmitterDeps, options: AdmitterOptions): Admitter =>
  new LedgerAdmitter(deps, options);
