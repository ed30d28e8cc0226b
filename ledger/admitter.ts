/** Who is let in by an invite, and who stays: the issuer's side of admission, written down before anything leaves. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import {
  type Credentials,
  type Invite,
  issuerIdOf,
  type Membership,
  membershipLifetimeMs,
} from '../protocol/grants.ts';
import type { AuthorId, IssuerId, OwnerId, PeerId } from '../protocol/ids.ts';
import { type IssuerRecord, issueCredentials, type MeshRecord } from '../protocol/mesh.ts';
import type { Admitter } from '../protocol/peer/admit.ts';
import type { Clock, Log, Tokens } from '../protocol/ports.ts';
import { unixMs } from '../protocol/units.ts';
import type { Audit, AuditAction } from './audit.ts';
import { authorIdOf } from './block.ts';
import type { Ledger } from './ledger.ts';

export interface AdmitterDeps {
  readonly ledger: Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots'>;
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

/** Of a peer that nobody answers for but itself. */
const ownerOf = (peer: PeerId): OwnerId => `peer-${peer.slice(-12)}` as OwnerId;

const refused = (reason: string): HelixFlowError => new HelixFlowError('INVITE_INVALID', { reason });

/** Why the ledger cannot write now is this gateway's affair; the joiner may try again. */
const unavailable = (cause: HelixFlowError): HelixFlowError =>
  new HelixFlowError('ADMISSION_UNAVAILABLE', { reason: 'the issuer cannot write now' }, { cause });

class LedgerAdmitter implements Admitter {
  readonly #deps: AdmitterDeps;
  readonly #options: AdmitterOptions;
  readonly #issuer: IssuerId;
  readonly #author: AuthorId;
  /** The last exchange of each invite: the next one waits for it, so that two peers cannot take one use. */
  readonly #exchanges = new Map<string, Promise<unknown>>();

  constructor(deps: AdmitterDeps, options: AdmitterOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#issuer = issuerIdOf(options.issuer.key.publicKey);
    this.#author = authorIdOf(options.issuer.key.publicKey);
  }

  handles(issuer: IssuerId): boolean {
    const { roots } = this.#deps.ledger;
    const counts = issuer === this.#issuer ? !roots.isRevoked(issuer) : roots.issuers.has(issuer);
    return counts && (issuer === this.#issuer || this.#deps.ledger.authorsOf(issuer).includes(this.#author));
  }

  async admit(invite: Invite, joiner: PeerId): Promise<Credentials> {
    const earlier = this.#exchanges.get(invite.inviteId);
    const exchange = (earlier ?? Promise.resolve()).then(
      () => this.#exchange(invite, joiner),
      () => this.#exchange(invite, joiner),
    );
    this.#exchanges.set(invite.inviteId, exchange);
    try {
      return await exchange;
    } finally {
      if (this.#exchanges.get(invite.inviteId) === exchange) this.#exchanges.delete(invite.inviteId);
    }
  }

  async #exchange(invite: Invite, joiner: PeerId): Promise<Credentials> {
    const note = this.#noteFor('invite.use', joiner, `invite:${invite.inviteId}`);
    const refuse = (word: string, reason: string): never => {
      note('refused', word);
      throw refused(reason);
    };
    const { standing } = this.#deps.ledger;
    if (!this.handles(invite.issuer)) refuse('issuer-unknown', 'its issuer counts no more');
    if (standing.isBanned(joiner)) refuse('banned', 'this peer has been banned');
    const admitted = this.#admittedBy(invite);
    const isKnown = admitted.has(joiner);
    if (!isKnown && invite.uses > 0 && admitted.size >= invite.uses) refuse('used-up', 'it has been used');
    const { role, inviteId } = invite;
    return await this.#issue({ peer: joiner, role, owner: invite.owner ?? ownerOf(joiner) }, inviteId, note);
  }

  #admittedBy({ inviteId, issuer }: Invite): Set<PeerId> {
    const { standing, authorsOf } = this.#deps.ledger;
    const authors = new Set([...authorsOf.call(this.#deps.ledger, issuer), this.#author]);
    return new Set([...authors].flatMap((author) => [...standing.admittedBy(inviteId, author)]));
  }

  async renew(current: Membership): Promise<Credentials> {
    const { peer, role, owner, issuer } = current;
    const note = this.#noteFor('membership.renew', peer, `peer:${peer}`);
    if (!this.handles(issuer) || this.#deps.ledger.standing.isBanned(peer)) {
      note('refused', 'taken-back');
      throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'it was taken back' });
    }
    return await this.#issue({ peer, role, owner }, '', note);
  }

  #noteFor(
    action: AuditAction,
    peer: PeerId,
    object: string,
  ): (outcome: 'done' | 'refused' | 'failed', reason: string) => void {
    return (outcome, reason) => this.#deps.audit.note({ action, actor: `peer:${peer}`, object, outcome, reason });
  }

  /** A peer that asks again and again shall not fill the feed. */
  #isWritten({ peer, role, owner }: Pick<Membership, 'peer' | 'role' | 'owner'>, invite: string): boolean {
    const { ledger, clock } = this.#deps;
    if (invite !== '' && !ledger.standing.admittedBy(invite, this.#author).includes(peer)) return false;
    const freshFromMs = clock.wallMs() + freshShare * membershipLifetimeMs;
    return ledger.standing
      .members()
      .some(
        (known) =>
          known.peer === peer &&
          known.by === this.#author &&
          known.role === role &&
          known.owner === owner &&
          known.expiresMs >= freshFromMs,
      );
  }

  /** Writes that the peer is a member, then signs it. */
  async #issue(
    member: Pick<Membership, 'peer' | 'role' | 'owner'>,
    invite: string,
    note: (outcome: 'done' | 'failed', reason: string) => void,
  ): Promise<Credentials> {
    const { ledger, clock, tokens, log } = this.#deps;
    const nowMs = clock.wallMs();
    const expiresMs = unixMs(nowMs + membershipLifetimeMs);
    try {
      if (!this.#isWritten(member, invite)) {
        await ledger.append('issuer', [{ kind: 'member', invite, ...member, expiresMs }]);
      }
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      note('failed', error.code);
      throw unavailable(error);
    }
    const credentials = await issueCredentials(this.#options, member, { tokens, nowMs });
    log.info('admission.admitted', { peer: member.peer, role: member.role, owner: member.owner, invite });
    note('done', '');
    return credentials;
  }
}

/** Admits and renews with an issuer's key over the ledger. */
export const createAdmitter = (deps: AdmitterDeps, options: AdmitterOptions): Admitter =>
  new LedgerAdmitter(deps, options);
