/** What a gateway says to those who ask to be, or stay, members: by itself, or by asking the issuer's gateway once. */

import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../errors.ts';
import { type Credentials, checkCredentials } from '../grants.ts';
import type { IssuerId, PeerId } from '../ids.ts';
import { checkInvite, type Invite } from '../invites.ts';
import { limits } from '../limits.ts';
import {
  type AdmitFrame,
  type AdmitRelay,
  type AdmitRenew,
  type AdmitRequest,
  parseAdmitFrame,
  type RefuseCode,
} from '../messages/admit.ts';
import type { Connection, Contact } from '../ports.ts';
import { ms } from '../units.ts';
import type { AdmissionDeps, AdmissionEvents, AdmissionOptions, Admitter } from './admit.ts';
import { ask, unavailable } from './ask.ts';

/** Answers to questions as they came, unread. Nothing is thrown: a refusal is an answer. */
export interface Answers {
  toJoiner(question: Uint8Array, joiner: PeerId): Promise<AdmitFrame>;
  toMember(question: Uint8Array, connection: Connection): Promise<AdmitFrame>;
  /** For one more than can be served. */
  busy(peer: PeerId): AdmitFrame;
}

/** Other codes stay here: whoever asked could not act on them. */
function refusalOf(error: HelixFlowError): { readonly code: RefuseCode; readonly reason: string } {
  for (const code of ['INVITE_INVALID', 'MEMBERSHIP_INVALID', 'ADMISSION_UNAVAILABLE'] as const) {
    if (isHelixFlowError(error, code)) return { code, reason: error.details.reason };
  }
  return { code: 'ADMISSION_UNAVAILABLE', reason: error.code };
}

/** Of whom a gateway speaks. */
const subjectOf = (frame: AdmitFrame): PeerId | undefined =>
  frame.type === 'relay' ? frame.joiner : frame.type === 'renew' ? frame.peer : undefined;

class AdmissionAnswers implements Answers {
  readonly #deps: AdmissionDeps;
  readonly #options: AdmissionOptions;
  readonly #events: AdmissionEvents;

  constructor(deps: AdmissionDeps, options: AdmissionOptions, events: AdmissionEvents) {
    this.#deps = deps;
    this.#options = options;
    this.#events = events;
  }

  async toJoiner(question: Uint8Array, joiner: PeerId): Promise<AdmitFrame> {
    try {
      const frame = parseAdmitFrame(question);
      if (frame.type !== 'request') throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'no request' });
      return { type: 'admitted', credentials: await this.#admit(frame, joiner, true) };
    } catch (error) {
      return this.#refuse(joiner, error);
    }
  }

  async toMember(question: Uint8Array, connection: Connection): Promise<AdmitFrame> {
    const isGateway = this.#deps.hello.infoOf(connection)?.membership.role === 'gateway';
    let subject = connection.peer;
    try {
      const frame = parseAdmitFrame(question);
      if (isGateway) subject = subjectOf(frame) ?? subject;
      const isOwn = subject === connection.peer;
      return { type: 'admitted', credentials: await this.#serve(frame, subject, { isGateway, isOwn }) };
    } catch (error) {
      return this.#refuse(subject, error);
    }
  }

  #serve(
    frame: AdmitFrame,
    subject: PeerId,
    asker: { readonly isGateway: boolean; readonly isOwn: boolean },
  ): Promise<Credentials> {
    if (frame.type === 'renew' && frame.peer === subject) return this.#renew(frame, asker.isOwn);
    if (frame.type === 'relay' && asker.isGateway) return this.#admit(frame, subject, false);
    throw unavailable('only gateways pass requests on');
  }

  busy(peer: PeerId): AdmitFrame {
    return this.#refuse(peer, unavailable('too many peers are being admitted at once'));
  }

  #refuse(peer: PeerId, cause: unknown): AdmitFrame {
    const error = toHelixFlowError(cause, (thrown) => unavailable('this gateway failed', thrown));
    const { code, reason } = refusalOf(error);
    this.#deps.log.info('admission.refused', { peer, code, reason });
    if (code !== 'ADMISSION_UNAVAILABLE') this.#events.refused?.(peer, code);
    return { type: 'refuse', code, reason };
  }

  #admitterOf(issuer: IssuerId): Admitter | undefined {
    const { admitter } = this.#options;
    return admitter?.handles(issuer) === true ? admitter : undefined;
  }

  async #admit(frame: AdmitRequest | AdmitRelay, joiner: PeerId, mayPassOn: boolean): Promise<Credentials> {
    const { tokens, clock } = this.#deps;
    const invite = await checkInvite(frame.invite, { tokens, nowMs: clock.wallMs() });
    this.#checkInvite(invite, joiner);
    const admitter = this.#admitterOf(invite.issuer);
    if (admitter === undefined) {
      const relay: AdmitRelay = { type: 'relay', invite: frame.invite, joiner };
      return this.#passOn(relay, mayPassOn, invite.issuer, invite.gateways);
    }
    return admitter.admit(invite, joiner);
  }

  #checkInvite({ meshId, issuer }: Invite, joiner: PeerId): void {
    const { mesh, isMember } = this.#options;
    if (meshId !== mesh.meshId) throw new HelixFlowError('INVITE_INVALID', { reason: 'it is for another mesh' });
    if (isMember?.({ peer: joiner, issuer }) !== false) return;
    throw new HelixFlowError('INVITE_INVALID', { reason: 'this peer, or who made the invite, was taken back' });
  }

  async #renew(frame: AdmitRenew, mayPassOn: boolean): Promise<Credentials> {
    const { tokens, clock } = this.#deps;
    const { peer, credentials } = frame;
    const checking = { tokens, meshId: this.#options.mesh.meshId, peer, nowMs: clock.wallMs() };
    const membership = await checkCredentials(credentials, checking);
    if (this.#options.isMember?.(membership) === false) {
      throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'it was taken back' });
    }
    const admitter = this.#admitterOf(membership.issuer);
    if (admitter === undefined) return this.#passOn(frame, mayPassOn, membership.issuer, []);
    return admitter.renew(membership);
  }

  /** Asks the issuer's gateway, or those that the issuer named in the invite; whoever asked checks what comes back. */
  async #passOn(
    question: AdmitRelay | AdmitRenew,
    mayPassOn: boolean,
    issuer: IssuerId,
    named: readonly Contact[],
  ): Promise<Credentials> {
    if (!mayPassOn) throw unavailable('this gateway does not hold the key of the issuer');
    const holder = this.#options.holderOf?.(issuer);
    const first = named.find(({ peer }) => peer === holder) ?? (holder && { peer: holder, addresses: [] });
    const gateways = first === undefined ? named : [first, ...named.filter(({ peer }) => peer !== holder)];
    // Half the time of who asked, so that a refusal still gets there.
    using deadline = this.#deps.clock.deadline(ms(limits.admitTimeoutMs / 2));
    let last = unavailable('the gateway of the issuer is not connected to this one');
    for (const gateway of gateways) {
      try {
        const connection = await this.#connectionTo(gateway, deadline.signal);
        if (connection !== undefined) return await ask(connection, question, deadline.signal);
      } catch (error) {
        last = toHelixFlowError(error, (cause) => unavailable('the gateway of the issuer failed', cause));
        if (last.code === 'INVITE_INVALID' || last.code === 'MEMBERSHIP_INVALID') throw last;
      }
    }
    throw last;
  }

  async #connectionTo(gateway: Contact, signal: AbortSignal): Promise<Connection | undefined> {
    const { network, hello, reach } = this.#deps;
    const { peer } = gateway;
    if (peer === network.self) return undefined;
    const known = network.connections().find((open) => open.isOpen && open.isAdmitted && open.peer === peer);
    const connection = known ?? (await reach?.(gateway, signal));
    if (connection === undefined || hello.infoOf(connection)?.membership.role !== 'gateway') return undefined;
    return connection;
  }
}

/** Answers for the admission of `admit.ts`, which bounds how many are under way. */
export const createAnswers = (deps: AdmissionDeps, options: AdmissionOptions, events: AdmissionEvents): Answers =>
  new AdmissionAnswers(deps, options, events);
