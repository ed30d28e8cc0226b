/** Bounds what one IPv4 address or IPv6 network can hold of connections that have not said who they are. */

import type { MultiaddrConnection, Upgrader, UpgraderOptions } from '@libp2p/interface';
import { HelixFlowError } from '../../errors.ts';
import { sourceOf } from '../../peer/address.ts';

const originOf = ({ remoteAddr }: MultiaddrConnection): string =>
  sourceOf(remoteAddr.getComponents().find(({ name }) => name === 'ip4' || name === 'ip6')?.value ?? '');

/**
 * An upgrader that closes the oldest unfinished connection of a place when one too many comes from there:
 * who connects and stays silent loses its own, and a peer behind the same address still gets in.
 */
export function boundPending(upgrader: Upgrader, perAddressMax: number): Upgrader {
  const pendingByOrigin = new Map<string, Set<MultiaddrConnection>>();

  async function upgradeInbound(connection: MultiaddrConnection, options: UpgraderOptions): Promise<void> {
    const origin = originOf(connection);
    const pending = pendingByOrigin.get(origin) ?? new Set();
    pendingByOrigin.set(origin, pending);
    const [oldest] = pending;
    if (oldest !== undefined && pending.size >= perAddressMax) {
      pending.delete(oldest);
      oldest.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'too many unfinished connections from one place' }));
    }
    pending.add(connection);
    try {
      await upgrader.upgradeInbound(connection, options);
    } finally {
      pending.delete(connection);
      if (pending.size === 0 && pendingByOrigin.get(origin) === pending) pendingByOrigin.delete(origin);
    }
  }

  return Object.assign(Object.create(upgrader) as Upgrader, { upgradeInbound });
}
