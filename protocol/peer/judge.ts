/** Judges what a peer shows in its hello: is it a member, and what can both sides agree on. */

import { HelixFlowError } from '../errors.ts';
import { checkCredentials, type Membership } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { agreeLimits, agreeVersion, type Hello as HelloFrame, ourLimits, ourVersions } from '../messages/hello.ts';
import { takeAll } from './create-roots.ts';
import type { HelloDeps, HelloOptions, PeerInfo } from './hello.ts';

/** Why a membership that holds by its signatures does not count. */
export function objectionTo(
  membership: Membership,
  { roots, isMember }: Pick<HelloOptions, 'roots' | 'isMember'>,
): HelixFlowError | undefined {
  const isTakenBack = roots?.isRevoked(membership.issuer) === true || isMember?.(membership) === false;
  return isTakenBack ? new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'it was taken back' }) : undefined;
}

/**
 * What the hello tells, once what it says of the root has been taken in.
 * @param hello.peer Whom the connection has authenticated.
 * @throws HelixFlowError VERSION_UNSUPPORTED; MEMBERSHIP_INVALID; PROTOCOL_VIOLATION
 */
export async function judgeHello(
  hello: HelloFrame & { readonly peer: PeerId },
  { clock, tokens }: Pick<HelloDeps, 'clock' | 'tokens'>,
  options: HelloOptions,
): Promise<PeerInfo> {
  const { meshId, roots } = options;
  const { peer, process, addresses } = hello;
  const version = agreeVersion(ourVersions, hello.versions);
  if (roots !== undefined) await takeAll(roots, hello.roots);
  const membership = await checkCredentials(hello.credentials, { tokens, meshId, peer, nowMs: clock.wallMs() });
  await roots?.take({ kind: 'issuer', token: hello.credentials.certificate });
  const objection = objectionTo(membership, options);
  if (objection !== undefined) throw objection;
  const features = new Set(hello.features.filter((feature) => options.features?.includes(feature)));
  return { membership, process, version, features, limits: agreeLimits(ourLimits, hello.limits), addresses };
}
