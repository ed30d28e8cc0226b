/** How a peer with an invite becomes a member, and a member stays one: the joiner's side, and the gateways' (design §4, §6). */

import { HelixFlowError, toHelixFlowError } from '../errors.ts';
import { type Credentials, checkCredentials, type Membership } from '../grants.ts';
import type { IssuerId, MeshId, PeerId } from '../ids.ts';
import { checkInvite, type Invite } from '../invites.ts';
import { limits } from '../limits.ts';
import type { MeshRecord } from '../mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame, type RefuseCode } from '../messages/admit.ts';
import type { Cancel, Channel, Clock, Connection, Contact, Log, Network, Tokens } from '../ports.ts';
import { ms } from '../units.ts';
import { createAnswers } from './admit-answers.ts';
import { ask, unavailable } from './ask.ts';
import type { Hello } from './hello.ts';

export interface JoinDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly tokens: Tokens;
}

export interface AdmissionDeps extends JoinDeps {
  readonly log: Log;
  readonly hello: Hello;
  /** An admitted connection to a gateway, dialled if need be; without it only those that there are serve. */
  readonly reach?: (gateway: Contact, signal: AbortSignal) => Promise<Connection>;
}

/** Once answered, a joiner has this long to read it and to close. */
const answerGraceMs = 1_000;

interface JoinOptions {
  /** The mesh that this peer belongs to already, as when a lapsed membership is replaced. */
  readonly meshId?: MeshId;
  readonly signal: AbortSignal;
}

/**
 * Becomes a member: shows the invite to its gateways, one after the other, on a connection that is closed again.
 * Needs a started network, and a hello (if any) that has no credentials yet.
 * @param text The invite, as `signInvite` made it.
 * @throws HelixFlowError INVITE_INVALID; MESH_MISMATCH; ADMISSION_UNAVAILABLE when no gateway could admit this peer
 *   now; MEMBERSHIP_INVALID when what came back is not for this peer and mesh; the reason of `signal`.
 */
export async function joinMesh(text: string, deps: JoinDeps, options: JoinOptions): Promise<Credentials> {
  const { clock, tokens, network } = deps;
  const { meshId: ours, signal } = options;
  const invite = await checkInvite(text, { tokens, nowMs: clock.wallMs() });
  const { meshId } = invite;
  if (ours !== undefined && ours !== meshId) throw new HelixFlowError('MESH_MISMATCH', { theirs: meshId, ours });
  let last = unavailable('the invite names no gateway');
  for (const gateway of invite.gateways) {
    try {
      const credentials = await joinThrough(gateway, text, deps, signal);
      await checkCredentials(credentials, { tokens, meshId, peer: network.self, nowMs: clock.wallMs() });
      return credentials;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      last = toHelixFlowError(error, (cause) => unavailable('the gateway that was asked failed', cause));
      if (last.code === 'INVITE_INVALID' || last.code === 'MEMBERSHIP_INVALID') throw last;
    }
  }
  throw last.code === 'ADMISSION_UNAVAILABLE' ? last : unavailable('no gateway of the invite can be reached', last);
}

async function joinThrough(gateway: Contact, text: string, deps: JoinDeps, signal: AbortSignal): Promise<Credentials> {
  using deadline = deps.clock.deadline(ms(limits.admitTimeoutMs), signal);
  const connection = await deps.network.connect(gateway.peer, gateway.addresses, deadline.signal);
  try {
    return await ask(connection, { type: 'request', invite: text }, deadline.signal);
  } finally {
    await connection.close();
  }
}

/** What an issuer's gateway does for those who would be members; durable before it resolves. */
export interface Admitter {
  /** True for the issuer whose key is here, and those it succeeded. */
  handles(issuer: IssuerId): boolean;
  /**
   * The same peer may come again with the same invite.
   * @throws HelixFlowError INVITE_INVALID, for a further peer on a used-up invite too; ADMISSION_UNAVAILABLE
   */
  admit(invite: Invite, joiner: PeerId): Promise<Credentials>;
  /** @throws HelixFlowError MEMBERSHIP_INVALID, for a banned peer too; ADMISSION_UNAVAILABLE */
  renew(current: Membership): Promise<Credentials>;
}

export interface AdmissionOptions {
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey'>;
  /** Only at an issuer's gateway. Others pass requests on to it. */
  readonly admitter?: Admitter;
  /** The gateway that holds an issuer's key, as far as is known. */
  readonly holderOf?: (issuer: IssuerId) => PeerId | undefined;
  /** False for a peer that is banned, or an issuer that the root took back: nothing is asked of anybody then. */
  readonly isMember?: (member: Pick<Membership, 'peer' | 'issuer'>) => boolean;
}

/** What the gateway's owner hears of the admission. */
export interface AdmissionEvents {
  /** A peer was told that it does not become, or stay, a member; not that this gateway cannot help just now. */
  refused?(peer: PeerId, code: Exclude<RefuseCode, 'ADMISSION_UNAVAILABLE'>): void;
}

/**
 * Serves the admission at a gateway; call before the network's `start`. At most `limits.admitConnectionsMax` joiners are
 * connected, and as many questions of members under way, each for at most `limits.admitTimeoutMs`. The same peer may
 * repeat the exchange. What this gateway cannot answer it passes on to the issuer's, once.
 */
export function createAdmission(deps: AdmissionDeps, options: AdmissionOptions, events: AdmissionEvents = {}): void {
  const joiners = new Map<Connection, Cancel>();
  const answers = createAnswers(deps, options, events);
  let asked = 0;

  const closeAfter = (connection: Connection, delayMs: number): void => {
    joiners.get(connection)?.();
    joiners.set(
      connection,
      deps.clock.timer(ms(delayMs), () => void connection.close()),
    );
  };

  /** Whether this connection may be used to join; bounds how long. */
  const take = (connection: Connection): boolean => {
    if (!deps.hello.standAside(connection)) return false;
    closeAfter(connection, limits.admitTimeoutMs);
    connection.onClose(() => {
      joiners.get(connection)?.();
      joiners.delete(connection);
    });
    return true;
  };

  const respond = async (channel: Channel, answer: Promise<AdmitFrame>): Promise<void> => {
    const { connection } = channel;
    channel.send(encodeAdmitFrame(await answer));
    channel.end();
    if (joiners.has(connection)) closeAfter(connection, answerGraceMs);
  };

  const serve = (channel: Channel, answer: (question: Uint8Array) => Promise<AdmitFrame>): void => {
    let isAsked = false;
    channel.receive({
      frame: (bytes) => {
        if (isAsked) void channel.connection.close();
        else void respond(channel, answer(bytes.slice()));
        isAsked = true;
      },
      closed: () => {},
      drained: () => {},
    });
  };

  const answerMember = async (question: Uint8Array, connection: Connection): Promise<AdmitFrame> => {
    if (asked >= limits.admitConnectionsMax) return answers.busy(connection.peer);
    asked += 1;
    try {
      return await answers.toMember(question, connection);
    } finally {
      asked -= 1;
    }
  };

  const accept = (channel: Channel): void => {
    const { connection } = channel;
    if (connection.isAdmitted) serve(channel, (question) => answerMember(question, connection));
    else if (joiners.size >= limits.admitConnectionsMax) serve(channel, async () => answers.busy(connection.peer));
    else if (take(connection)) serve(channel, (question) => answers.toJoiner(question, connection.peer));
    else void connection.close();
  };

  deps.network.handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: limits.helloMaxBytes }, accept);
}
