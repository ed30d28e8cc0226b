/** Bounds what one IP address can hold of connections that have not said who they are. */

import type { MultiaddrConnection, Upgrader, UpgraderOptions } from '@libp2p/interface';
import { HelixFlowError } from '../../errors.ts';

const ipOf = ({ remoteAddr }: MultiaddrConnection): string =>
  remoteAddr.getComponents().find(({ name }) => name === 'ip4' || name === 'ip6')?.value ?? '';

/**
 * An upgrader that closes the oldest unfinished connection of an address when one too many comes from there:
 * who connects and stays silent loses its own, and a peer behind the same address still gets in.
 */
export function boundPending(upgrader: Upgrader, perAddressMax: number): Upgrader {
  const pendingByIp = new Map<string, Set<MultiaddrConnection>>();

  async function upgradeInbound(connection: MultiaddrConnection, options: UpgraderOptions): Promise<void> {
    const ip = ipOf(connection);
    const pending = pendingByIp.get(ip) ?? new Set();
    pendingByIp.set(ip, pending);
    const [oldest] = pending;
    if (oldest !== undefined && pending.size >= perAddressMax) {
      pending.delete(oldest);
      oldest.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'too many unfinished connections of one address' }));
    }
    pending.add(connection);
    try {
      await upgrader.upgradeInbound(connection, options);
    } finally {
      pending.delete(connection);
      if (pending.size === 0 && pendingByIp.get(ip) === pending) pendingByIp.delete(ip);
    }
  }

  return Object.assign(Object.create(upgrader) as Upgrader, { upgradeInbound });
}
