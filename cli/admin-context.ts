/** What operations of the admin API work on in this process: the parts of one gateway, put together. */

import type { AdminContext, AuditReader, AuditVerdict } from '../gateway/admin/operation.ts';
import type { AuditLog } from '../ledger/adapters/audit-files.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { NetworkKind } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { filterAddresses, isRelayed } from '../protocol/peer/address.ts';
import type { Member } from '../protocol/peer/member.ts';
import type { Contact } from '../protocol/ports.ts';

/** The audit log as the admin API reads it. */
export function auditReader(audit: Pick<AuditLog, 'tail' | 'verify'>): AuditReader {
  return {
    tail: (lines) => audit.tail(lines),
    verify: async (): Promise<AuditVerdict> => {
      const { lines, finding } = await audit.verify();
      if (finding === undefined) return { ok: true, lines, reason: '' };
      return { ok: false, lines, brokenAt: finding.number, reason: finding.fault };
    },
  };
}

/** Gateways of the mesh that are connected now, by what they told of themselves. */
export const connectedGateways = (member: Pick<Member, 'admitted'>): readonly Contact[] =>
  member
    .admitted()
    .flatMap(([{ peer }, { membership, addresses }]) => (membership.role === 'gateway' ? [{ peer, addresses }] : []));

/** Others that an invite names beside this gateway: they pass a joiner on when this one has moved. */
const othersMax = 3;

/**
 * Where the bearer of an invite may reach the mesh.
 * @param contacts This gateway first.
 * @throws HelixFlowError GATEWAY_UNKNOWN
 */
export function inviteContacts(contacts: readonly Contact[], network: NetworkKind): readonly Contact[] {
  const byPeer = new Map<PeerId, Contact>();
  for (const [index, { peer, addresses }] of contacts.entries()) {
    // A relay passes nothing on for who is no member yet.
    const direct = addresses.filter((address) => !isRelayed(address));
    const reachable = filterAddresses(direct, network);
    if (index === 0 && reachable.length === 0) throw new HelixFlowError('GATEWAY_UNKNOWN', {});
    if (reachable.length > 0 && !byPeer.has(peer)) byPeer.set(peer, { peer, addresses: reachable });
  }
  return [...byPeer.values()].slice(0, 1 + othersMax);
}

/** The parts of a context that are the same wherever it is made. */
export type AdminParts = Omit<AdminContext, 'audit'> & { readonly audit: AuditLog };

export const createAdminContext = ({ audit, ...parts }: AdminParts): AdminContext => ({
  ...parts,
  audit: auditReader(audit),
});
