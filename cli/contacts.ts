/** Gateways by which a directory's mesh can be found: from its daemon, else from what it remembers. */

import { openLevelStore } from '../ledger/adapters/store-level.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { createPeerBook } from '../protocol/peer/book.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Contact } from '../protocol/ports.ts';
import { callDaemon } from './control-client.ts';
import type { DataDir } from './data-dir.ts';
import { fileExists } from './files.ts';
import { holdDataDir } from './holder.ts';
import { readIdentity, readSettings } from './peer-files.ts';

const contactsMax = 32;

/** Its own gateway as it ran last, those that its invite named, and those that it has met. */
async function remembered(dir: DataDir): Promise<readonly Contact[]> {
  const paths = dir.peer('gateway');
  const { addresses, bootstrap } = await readSettings(paths);
  const identity = await readIdentity(paths);
  const own = identity === undefined ? [] : [{ peer: peerIdOf(identity.publicKey), addresses }];
  if (!(await fileExists(paths.store))) return [...own, ...bootstrap];
  const clock = systemClock();
  await using _hold = await holdDataDir(dir, 'mesh backup');
  const store = await openLevelStore(paths.store);
  try {
    const book = createPeerBook({ store, clock, log: createLog({ level: 'silent', destination: 'stderr' }) });
    const met = (await book.recall()).filter(({ role }) => role === 'gateway');
    return [...own, ...bootstrap, ...met.map(({ peer, addresses: at }) => ({ peer, addresses: at }))];
  } finally {
    await store.close();
  }
}

/** Each at most once, those without an address left out. */
function distinct(contacts: readonly Contact[]): readonly Contact[] {
  const byPeer = new Map<string, Contact>();
  for (const contact of contacts) {
    if (contact.addresses.length > 0 && !byPeer.has(contact.peer)) byPeer.set(contact.peer, contact);
  }
  return [...byPeer.values()].slice(0, contactsMax);
}

/** @throws HelixFlowError DATA_DIR_HELD, STORE_FAILED, DATA_DIR_UNUSABLE */
export async function knownGateways(dir: DataDir): Promise<readonly Contact[]> {
  try {
    return distinct(await callDaemon(dir.socket, 'GET /contacts'));
  } catch (error) {
    if (!isHelixFlowError(error, 'DAEMON_UNREACHABLE') && !isHelixFlowError(error, 'ROUTE_NOT_FOUND')) throw error;
    return distinct(await remembered(dir));
  }
}
