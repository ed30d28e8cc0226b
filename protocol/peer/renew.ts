/** How a member gets a longer membership before its own ends (design §6). */

import { HelixFlowError, toHelixFlowError } from '../errors.ts';
import { type Credentials, checkCredentials, type Membership } from '../grants.ts';
import type { IssuerId, MeshId, PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Clock, Connection, Network, Tokens } from '../ports.ts';
import { ms } from '../units.ts';
import { ask, unavailable } from './ask.ts';
import type { Hello } from './hello.ts';

export interface RenewalDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly hello: Pick<Hello, 'infoOf'>;
}

export interface RenewalOptions {
  readonly meshId: MeshId;
  /** What this peer shows now; must still be good. */
  readonly credentials: Credentials;
  /** The gateway that holds an issuer's key, as far as is known; asked first. */
  readonly holderOf?: (issuer: IssuerId) => PeerId | undefined;
  readonly signal: AbortSignal;
}

/** One admitted connection per gateway, the holder's first. */
function gatewaysOf({ network, hello }: RenewalDeps, holder: PeerId | undefined): readonly Connection[] {
  const found = new Map<PeerId, Connection>();
  for (const connection of network.connections()) {
    if (!connection.isOpen || !connection.isAdmitted) continue;
    if (hello.infoOf(connection)?.membership.role === 'gateway') found.set(connection.peer, connection);
  }
  const rank = ({ peer }: Connection): number => (peer === holder ? 0 : 1);
  return [...found.values()].sort((a, b) => rank(a) - rank(b)).slice(0, limits.sessionsPerNodeMax);
}

/** @throws HelixFlowError MEMBERSHIP_INVALID when it is not this member's, or no better than what it has. */
async function checkRenewed(
  renewed: Credentials,
  current: Membership,
  { tokens, clock }: RenewalDeps,
): Promise<Credentials> {
  const { meshId, peer } = current;
  const { role, owner, expiresMs } = await checkCredentials(renewed, { tokens, meshId, peer, nowMs: clock.wallMs() });
  if (role === current.role && owner === current.owner && expiresMs > current.expiresMs) return renewed;
  throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'what came back is no renewal' });
}

/**
 * Shows the current membership to connected gateways, one after the other, until one renews it: by itself, or by asking
 * the issuer's. Safe to repeat: the current one stays good until it ends, whatever happens to an answer. For the last
 * third of a membership; the issuer writes each renewal down.
 * @throws HelixFlowError MEMBERSHIP_INVALID when the current one is none any more, or a gateway said that it was taken
 *   back and none renewed it; ADMISSION_UNAVAILABLE when none could, now; the reason of `signal`.
 */
export async function renewMembership(deps: RenewalDeps, options: RenewalOptions): Promise<Credentials> {
  const { network, clock, tokens } = deps;
  const { meshId, credentials, holderOf, signal } = options;
  const peer = network.self;
  const current = await checkCredentials(credentials, { tokens, meshId, peer, nowMs: clock.wallMs() });
  let last = unavailable('no gateway is connected');
  for (const connection of gatewaysOf(deps, holderOf?.(current.issuer))) {
    using deadline = clock.deadline(ms(limits.admitTimeoutMs), signal);
    try {
      const renewed = await ask(connection, { type: 'renew', peer, credentials }, deadline.signal);
      return await checkRenewed(renewed, current, deps);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const failed = toHelixFlowError(error, (cause) => unavailable('the gateway that was asked failed', cause));
      // One that is out of date or lies does not outweigh the others, but what it said is worth more than a silence.
      if (last.code !== 'MEMBERSHIP_INVALID') last = failed;
    }
  }
  const isTold = last.code === 'MEMBERSHIP_INVALID' || last.code === 'ADMISSION_UNAVAILABLE';
  throw isTold ? last : unavailable('no gateway that is connected could renew it', last);
}
