/** A stage for the admission: gateways in one memory network, and a joiner. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { type Credentials, checkCredentials, issuerIdOf, type Membership } from '../../protocol/grants.ts';
import type { IssuerId, PeerId } from '../../protocol/ids.ts';
import { type Invite, ownerBy, signInvite } from '../../protocol/invites.ts';
import { issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame, parseAdmitFrame } from '../../protocol/messages/admit.ts';
import {
  type AdmissionDeps,
  type AdmissionOptions,
  type Admitter,
  createAdmission,
  joinMesh,
} from '../../protocol/peer/admit.ts';
import type { Clock, Contact } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { forever, mesh, type Side, Stage } from './hello-stage.ts';
import { type MemoryConnection, type MemoryNetwork, until } from './memory-network.ts';
import { credentialsFor, owner, peer, quietLog, startMs, tokens } from './mesh-fixture.ts';

export const joiner = peer('Joiner');
/** The gateway that holds the issuer's key, where the test gives it. */
export const issuing = peer('Issuing');
/** Another gateway. */
export const second = peer('Second');

export const contact = (self: PeerId): Contact => ({ peer: self, addresses: [`/memory/${self}`] });

/** An invite for a node, good for a minute, with any part of it changed. */
export const inviteTo = (
  gateways: readonly PeerId[],
  { isOpen = false, ...changes }: Partial<Invite> & { readonly isOpen?: boolean } = {},
  by = mesh,
): Promise<string> =>
  signInvite(
    {
      meshId: by.mesh.meshId,
      issuer: issuerIdOf(by.issuer.key.publicKey),
      inviteId: '0'.repeat(32),
      role: 'node',
      ...(isOpen ? {} : { owner }),
      uses: 1,
      network: 'lan',
      gateways: gateways.map(contact),
      rootPublicKey: by.mesh.rootPublicKey,
      certificate: by.issuer.certificate,
      expiresMs: unixMs(startMs + 60_000),
      ...changes,
    },
    by.issuer.key,
    { tokens, nowMs: startMs },
  );

/** Shows `frame` by hand, and gives back what is said to it. */
export async function show(frame: AdmitFrame | Uint8Array, connection: MemoryConnection): Promise<AdmitFrame> {
  const channel = await connection.open(ADMIT_PROTOCOL, forever());
  const answers: AdmitFrame[] = [];
  channel.receive({ frame: (bytes) => answers.push(parseAdmitFrame(bytes)), closed: () => {}, drained: () => {} });
  channel.send(frame instanceof Uint8Array ? frame : encodeAdmitFrame(frame));
  await until(() => answers.length > 0);
  return answers[0] as AdmitFrame;
}

/** An issuer that keeps in memory whom each invite has admitted, and whom it banned. */
export class MemoryDesk implements Admitter {
  readonly admitted = new Map<string, Set<PeerId>>();
  readonly banned = new Set<PeerId>();
  readonly renewed: PeerId[] = [];
  readonly #issuer: NewMesh['issuer'];
  readonly #clock: Clock;

  constructor(issuer: NewMesh['issuer'], clock: Clock) {
    this.#issuer = issuer;
    this.#clock = clock;
  }

  handles(issuer: IssuerId): boolean {
    return issuer === issuerIdOf(this.#issuer.key.publicKey);
  }

  async admit(invite: Invite, joiner: PeerId): Promise<Credentials> {
    const peers = this.admitted.get(invite.inviteId) ?? new Set();
    if (!peers.has(joiner) && peers.size >= invite.uses) {
      throw new HelixFlowError('INVITE_INVALID', { reason: 'it is used up' });
    }
    this.admitted.set(invite.inviteId, peers.add(joiner));
    return this.#issue({ peer: joiner, role: invite.role, owner: ownerBy(invite, joiner) });
  }

  async renew(current: Membership): Promise<Credentials> {
    if (this.banned.has(current.peer)) throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'it is banned' });
    this.renewed.push(current.peer);
    return this.#issue(current);
  }

  #issue({ peer: member, role, owner: answers }: Pick<Membership, 'peer' | 'role' | 'owner'>): Promise<Credentials> {
    const grant = { peer: member, role, owner: answers };
    return issueCredentials({ ...mesh, issuer: this.#issuer }, grant, { tokens, nowMs: this.#clock.wallMs() });
  }
}

/** A gateway, its desk where it has one, and whom it has turned away. */
export interface GatewaySide extends Side {
  readonly desk: MemoryDesk | undefined;
  readonly turnedAway: [PeerId, string][];
}

type Knowledge = Pick<AdmissionOptions, 'holderOf' | 'isMember'> & Pick<AdmissionDeps, 'reach'>;

export class AdmitStage extends Stage {
  /** A gateway that admits; by itself only with the key of an issuer. */
  async gateway(self: PeerId, issuer?: NewMesh['issuer'], knows: Knowledge = {}): Promise<GatewaySide> {
    const { reach, ...rest } = knows;
    const credentials = await credentialsFor(mesh, self, { role: 'gateway' });
    const side = await this.member(self, { credentials: () => credentials });
    const deps = { network: side.network, hello: side.hello, clock: this.clock, tokens, log: quietLog };
    const desk = issuer && new MemoryDesk(issuer, this.clock);
    const turnedAway: GatewaySide['turnedAway'] = [];
    createAdmission(
      { ...deps, ...(reach === undefined ? {} : { reach }) },
      { mesh: mesh.mesh, ...rest, ...(desk === undefined ? {} : { admitter: desk }) },
      { refused: (turned, code) => turnedAway.push([turned, code]) },
    );
    return { ...side, desk, turnedAway };
  }

  /** Two sides that have admitted each other. */
  async connect(from: Side, to: Side): Promise<MemoryConnection> {
    const [ours, theirs] = [from.admitted.length + 1, to.admitted.length + 1];
    const connection = await from.network.connect(to.network.self, [], forever());
    await until(() => from.admitted.length === ours && to.admitted.length === theirs);
    return connection;
  }

  join(text: string, network: MemoryNetwork): Promise<Credentials> {
    const options = { meshId: mesh.mesh.meshId, signal: forever() };
    return joinMesh(text, { network, clock: this.clock, tokens }, options);
  }

  /** What the joiner got. */
  membershipIn(credentials: Credentials): Promise<Membership> {
    const checking = { tokens, meshId: mesh.mesh.meshId, peer: joiner, nowMs: this.clock.wallMs() };
    return checkCredentials(credentials, checking);
  }
}
