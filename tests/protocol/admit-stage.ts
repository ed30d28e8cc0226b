/** A stage for the admission: gateways in one memory network, and a joiner. */

import {
  type Credentials,
  checkCredentials,
  type Invite,
  issuerIdOf,
  type Membership,
  signInvite,
} from '../../protocol/grants.ts';
import type { PeerId } from '../../protocol/ids.ts';
import type { NewMesh } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame, parseAdmitFrame } from '../../protocol/messages/admit.ts';
import { createAdmission, joinMesh } from '../../protocol/peer/admit.ts';
import type { Contact } from '../../protocol/ports.ts';
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
export const inviteTo = (gateways: readonly PeerId[], changes: Partial<Invite> = {}, by = mesh): Promise<string> =>
  signInvite(
    {
      meshId: by.mesh.meshId,
      issuer: issuerIdOf(by.issuer.key.publicKey),
      inviteId: '0'.repeat(32),
      role: 'node',
      owner,
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

export class AdmitStage extends Stage {
  /** A gateway that admits; by itself only with the key of an issuer. */
  async gateway(self: PeerId, issuer?: NewMesh['issuer']): Promise<Side> {
    const credentials = await credentialsFor(mesh, self, { role: 'gateway' });
    const side = await this.member(self, { credentials: () => credentials });
    const deps = { network: side.network, hello: side.hello, clock: this.clock, tokens, log: quietLog };
    createAdmission(deps, { mesh: mesh.mesh, ...(issuer === undefined ? {} : { issuer }) });
    return side;
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
