/** How a peer with an invite becomes a member: the joiner's side, and the gateways' (design §4, §6). */

import { errorText, HelixFlowError, isHelixFlowError, toHelixFlowError } from '../errors.ts';
import {
  type Credentials,
  checkCredentials,
  checkInvite,
  type Invite,
  issuerIdOf,
  type Membership,
  ownerBy,
} from '../grants.ts';
import type { IssuerId, MeshId, PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { type IssuerRecord, issueCredentials, type MeshRecord } from '../mesh.ts';
import {
  ADMIT_PROTOCOL,
  type AdmitFrame,
  type AdmitRelay,
  type AdmitRequest,
  encodeAdmitFrame,
  parseAdmitFrame,
  type RefuseCode,
} from '../messages/admit.ts';
import type { Cancel, Channel, Clock, Connection, Contact, Log, Network, Tokens } from '../ports.ts';
import { ms } from '../units.ts';
import type { Hello } from './hello.ts';

export interface JoinDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly tokens: Tokens;
}

export interface AdmissionDeps extends JoinDeps {
  readonly log: Log;
  readonly hello: Hello;
}

/** Once answered, a joiner has this long to read it and to close. */
const answerGraceMs = 1_000;

const closedEarly = (): HelixFlowError =>
  new HelixFlowError('CHANNEL_CLOSED', { reason: 'the admission ended without an answer' });
const unavailable = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('ADMISSION_UNAVAILABLE', { reason }, { cause });
const malformed = (cause: unknown): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: 'an answer to an invite' }, { cause });

/** Sends one frame on a new channel and waits for the one that answers it. */
async function ask(
  connection: Connection,
  frame: AdmitRequest | AdmitRelay,
  signal: AbortSignal,
): Promise<Credentials> {
  const channel = await connection.open(ADMIT_PROTOCOL, signal);
  const answer = await new Promise<AdmitFrame>((resolve, reject) => {
    const giveUp = (): void => {
      channel.abort(closedEarly());
      reject(signal.reason);
    };
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    channel.receive({
      frame: (bytes) => {
        try {
          resolve(parseAdmitFrame(bytes));
        } catch (error) {
          reject(toHelixFlowError(error, malformed));
        }
        signal.removeEventListener('abort', giveUp);
        channel.end();
      },
      closed: (error) => {
        signal.removeEventListener('abort', giveUp);
        reject(error ?? closedEarly());
      },
      drained: () => {},
    });
    channel.send(encodeAdmitFrame(frame));
  });
  if (answer.type === 'admitted') return answer.credentials;
  if (answer.type === 'refuse') throw new HelixFlowError(answer.code, { reason: answer.reason });
  throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: `a ${answer.type} in answer to an invite` });
}

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
  /** Only at an issuer's gateway. Others pass requests on to it, if they are connected. */
  readonly issuer?: IssuerRecord;
}

/**
 * Serves the admission at a gateway; call before the network's `start`. At most `limits.admitConnectionsMax` joiners are
 * connected at a time, each for at most `limits.admitTimeoutMs`. The same peer may repeat the exchange.
 */
export function createAdmission(deps: AdmissionDeps, options: AdmissionOptions): void {
  const joiners = new Map<Connection, Cancel>();

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

  const respond = async (channel: Channel, answer: () => Promise<Credentials>): Promise<void> => {
    const { connection } = channel;
    try {
      channel.send(encodeAdmitFrame({ type: 'admitted', credentials: await answer() }));
    } catch (error) {
      const cause = toHelixFlowError(error, (thrown) => unavailable('this gateway failed', thrown));
      deps.log.info('admission.refused', {
        peer: connection.peer,
        code: cause.code,
        reason: errorText(cause.code, cause.details),
      });
      channel.send(encodeAdmitFrame({ type: 'refuse', ...refusalOf(cause) }));
    }
    channel.end();
    if (joiners.has(connection)) closeAfter(connection, answerGraceMs);
  };

  const serve = (channel: Channel, answer: (frame: AdmitFrame) => Promise<Credentials>): void => {
    let isAsked = false;
    channel.receive({
      frame: (bytes) => {
        if (isAsked) void channel.connection.close();
        else void respond(channel, async () => answer(parseAdmitFrame(bytes)));
        isAsked = true;
      },
      closed: () => {},
      drained: () => {},
    });
  };

  const accept = (channel: Channel): void => {
    const { connection } = channel;
    if (connection.isAdmitted) {
      const role = deps.hello.infoOf(connection)?.membership.role;
      serve(channel, (frame) => answerRelay(frame, role, deps, options));
    } else if (joiners.size >= limits.admitConnectionsMax) {
      serve(channel, () => Promise.reject(unavailable('too many peers are being admitted at once')));
    } else if (take(connection)) {
      serve(channel, (frame) => answerRequest(frame, connection.peer, deps, options));
    } else {
      void connection.close();
    }
  };

  deps.network.handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: limits.helloMaxBytes }, accept);
}

/** Other codes stay here: a joiner could not act on them. */
function refusalOf(error: HelixFlowError): { code: RefuseCode; reason: string } {
  if (isHelixFlowError(error, 'INVITE_INVALID') || isHelixFlowError(error, 'ADMISSION_UNAVAILABLE')) {
    return { code: error.code, reason: error.details.reason };
  }
  return { code: 'ADMISSION_UNAVAILABLE', reason: error.code };
}

async function readInvite(text: string, deps: AdmissionDeps, options: AdmissionOptions): Promise<Invite> {
  const invite = await checkInvite(text, { tokens: deps.tokens, nowMs: deps.clock.wallMs() });
  if (invite.meshId === options.mesh.meshId) return invite;
  throw new HelixFlowError('INVITE_INVALID', { reason: 'it is for another mesh' });
}

/** Admits `joiner` if the invite is this issuer's own. */
async function issue(
  invite: Invite,
  joiner: PeerId,
  deps: AdmissionDeps,
  { mesh, issuer }: AdmissionOptions,
): Promise<Credentials | undefined> {
  if (issuer === undefined || issuerIdOf(issuer.key.publicKey) !== invite.issuer) return undefined;
  const { role, inviteId } = invite;
  const owner = ownerBy(invite, joiner);
  deps.log.info('admission.admitted', { peer: joiner, role, owner, invite: inviteId });
  const signing = { tokens: deps.tokens, nowMs: deps.clock.wallMs() };
  return issueCredentials({ mesh, issuer }, { peer: joiner, role, owner }, signing);
}

async function answerRequest(
  frame: AdmitFrame,
  joiner: PeerId,
  deps: AdmissionDeps,
  options: AdmissionOptions,
): Promise<Credentials> {
  if (frame.type !== 'request') throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'no request' });
  const invite = await readInvite(frame.invite, deps, options);
  const own = await issue(invite, joiner, deps, options);
  return own ?? passOn({ type: 'relay', invite: frame.invite, joiner }, invite, deps);
}

async function answerRelay(
  frame: AdmitFrame,
  role: string | undefined,
  deps: AdmissionDeps,
  options: AdmissionOptions,
): Promise<Credentials> {
  if (frame.type !== 'relay' || role !== 'gateway') throw unavailable('only gateways pass requests on');
  const invite = await readInvite(frame.invite, deps, options);
  const own = await issue(invite, frame.joiner, deps, options);
  if (own === undefined) throw unavailable('this gateway does not hold the key of the issuer');
  return own;
}

/** Asks those gateways that the issuer itself named in the invite; the joiner checks what comes back. */
async function passOn(relay: AdmitRelay, invite: Invite, deps: AdmissionDeps): Promise<Credentials> {
  // Half the joiner's time, so that a refusal still reaches it.
  using deadline = deps.clock.deadline(ms(limits.admitTimeoutMs / 2));
  let last = unavailable('the gateway of the issuer is not connected to this one');
  for (const { peer } of invite.gateways) {
    const connection = deps.network.connections().find((open) => open.isAdmitted && open.peer === peer);
    if (connection === undefined || deps.hello.infoOf(connection)?.membership.role !== 'gateway') continue;
    try {
      return await ask(connection, relay, deadline.signal);
    } catch (error) {
      last = toHelixFlowError(error, (cause) => unavailable('the gateway of the issuer failed', cause));
      if (last.code === 'INVITE_INVALID') throw last;
    }
  }
  throw last;
}
