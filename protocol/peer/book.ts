/** Contacts remembered across restarts, so that a peer finds its mesh again when every bootstrap address is gone. */

import { decodeValue, encodeValue } from '../codec.ts';
import { isHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import { isPeerId, type PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Clock, Contact, Log, Store, StoreOp } from '../ports.ts';
import { Reader } from '../reader.ts';

/** A contact, what it was, and when it was last a member in our presence. */
export interface Remembered extends Contact {
  readonly role: Role;
  readonly lastSeenMs: number;
}

/** Peers to come back to when every bootstrap address is down. */
export interface PeerBook {
  /** Remembers where an admitted peer could be reached. Not urgent: a crash may lose the newest. */
  remember(contact: Contact, role: Role): Promise<void>;
  /** The peer is a member no more. */
  forget(peer: PeerId): Promise<void>;
  /** All contacts, the most recently seen first. Damaged entries are skipped. */
  recall(): Promise<readonly Remembered[]>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const prefix = 'peer/';
const range = { gte: encoder.encode(prefix), lt: encoder.encode('peer0') };
const roles = ['node', 'gateway'] as const;

function parseEntry(key: Uint8Array, value: Uint8Array): Remembered | undefined {
  const peer = decoder.decode(key).slice(prefix.length);
  if (!isPeerId(peer)) return undefined;
  try {
    const reader = new Reader(decodeValue(value), 'remembered');
    const role = roles[reader.int(1)] as Role;
    const lastSeenMs = reader.int();
    const addresses = reader.list(limits.peerAddressesMax, String);
    return { peer, role, lastSeenMs, addresses };
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return undefined;
    throw error;
  }
}

/** A book in `deps.store`, holding at most `limits.peersRememberedMax` contacts: the oldest give way. */
export function createPeerBook(deps: { store: Store; clock: Clock; log: Log }): PeerBook {
  const { store, clock, log } = deps;
  const written = new Map<string, string>();

  const recall = async (): Promise<readonly Remembered[]> => {
    const found: Remembered[] = [];
    const stale: StoreOp[] = [];
    for await (const [key, value] of store.range(range)) {
      const entry = parseEntry(key, value);
      if (entry === undefined) stale.push({ type: 'del', key });
      else found.push(entry);
    }
    found.sort((a, b) => b.lastSeenMs - a.lastSeenMs || (a.peer < b.peer ? -1 : 1));
    for (const { peer } of found.splice(limits.peersRememberedMax)) {
      stale.push({ type: 'del', key: encoder.encode(prefix + peer) });
    }
    if (stale.length > 0) await store.batch(stale, { sync: false });
    return found;
  };

  const remember = async (contact: Contact, role: Role): Promise<void> => {
    const addresses = contact.addresses.slice(0, limits.peerAddressesMax);
    const summary = `${role} ${addresses.join(' ')}`;
    if (addresses.length === 0 || written.get(contact.peer) === summary) return;
    if (written.size >= limits.peersRememberedMax) written.clear();
    written.set(contact.peer, summary);
    const value = encodeValue([roles.indexOf(role), clock.wallMs(), addresses]);
    await write({ type: 'put', key: encoder.encode(prefix + contact.peer), value }, contact.peer);
  };

  const forget = async (peer: PeerId): Promise<void> => {
    written.delete(peer);
    await write({ type: 'del', key: encoder.encode(prefix + peer) }, peer);
  };

  const write = async (op: StoreOp, peer: PeerId): Promise<void> => {
    try {
      await store.batch([op], { sync: false });
    } catch (error) {
      if (!isHelixFlowError(error, 'STORE_FAILED')) throw error;
      log.warn('peers.not-remembered', { peer, code: error.code });
    }
  };

  return { remember, forget, recall };
}
