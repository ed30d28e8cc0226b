/** Heartbeats of issuers: signed, checked, and measured against what is held (design §6). */

import { isSameBytes, signBytes, verifyBytes } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, PeerId } from '../protocol/ids.ts';
import {
  encodeHeartbeat,
  type Heartbeat,
  type HeartbeatFrame,
  type HeartbeatHead,
  heartbeatHeadsMax,
} from '../protocol/messages/ledger.ts';
import type { SigningKey } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import { authorIdOf, authorKeyOf, type BlockPlace } from './block.ts';
import type { EpochHead, Feeds } from './feeds.ts';
import { type EpochKey, keyOf } from './replicate-wire.ts';

// A heartbeat of one mesh must not pass in another, nor a block's header as one.
const domainOf = (meshId: MeshId): string => `helixflow/heartbeat/1/${meshId}`;

/** Where an epoch says that it goes on from; undefined for the first of an author. */
export type Afters = ReadonlyMap<EpochKey, { readonly epoch: EpochId; readonly number: number } | undefined>;

export const isHeartbeatSigned = (frame: HeartbeatFrame, issuer: AuthorId, meshId: MeshId): boolean =>
  verifyBytes(domainOf(meshId), frame.bytes, frame.signature, authorKeyOf(issuer));

export function signHeartbeat(
  heartbeat: Omit<Heartbeat, 'issuer'>,
  by: { readonly meshId: MeshId; readonly key: SigningKey },
): HeartbeatFrame {
  const bytes = encodeHeartbeat({ ...heartbeat, issuer: authorIdOf(by.key.publicKey) });
  return { type: 'heartbeat', bytes, signature: signBytes(domainOf(by.meshId), bytes, by.key) };
}

/** What an issuer vouches for: the ends of its epochs, but for those that a later one goes on from. */
export function headsToName(heads: readonly EpochHead[], afters: Afters): readonly HeartbeatHead[] {
  const passed = new Map<EpochId, number>();
  for (const head of heads) {
    const after = afters.get(keyOf(head));
    if (after !== undefined) passed.set(after.epoch, Math.max(passed.get(after.epoch) ?? -1, after.number));
  }
  return heads
    .filter(({ epoch, number }) => number > (passed.get(epoch) ?? -1))
    .toSorted((a, b) => b.generation - a.generation || (a.epoch < b.epoch ? 1 : -1))
    .slice(0, heartbeatHeadsMax)
    .map(({ epoch, number, head }) => ({ epoch, number, hash: head.hash }));
}

/** True when the header of every head, and all blocks before it, are held. */
export async function isCovered(heartbeat: Heartbeat, feeds: Feeds, afters: Afters): Promise<boolean> {
  const { issuer: author } = heartbeat;
  for (const { epoch, number, hash } of heartbeat.heads) {
    if (!isHeldBefore({ author, epoch, number }, feeds, afters)) return false;
    const header = await feeds.headerAt({ author, epoch, number });
    if (header === undefined || !isSameBytes(header.hash, hash)) return false;
  }
  return true;
}

/** True when this block and all before it are held, back from epoch to epoch. */
export function isHeldBefore(place: BlockPlace, feeds: Feeds, afters: Afters): boolean {
  const { author } = place;
  const seen = new Set<EpochId>();
  let at: BlockPlace | undefined = place;
  while (at !== undefined && !seen.has(at.epoch)) {
    seen.add(at.epoch);
    const held = feeds.headOf(author, at.epoch);
    if (held === undefined || held.number < at.number) return false;
    const after = afters.get(keyOf(at));
    at = after === undefined ? undefined : { author, ...after };
  }
  return true;
}

/** A heartbeat with what it says. */
export interface KnownBeat {
  readonly frame: HeartbeatFrame;
  readonly heartbeat: Heartbeat;
  readonly timeMs: UnixMs;
  readonly holder: PeerId;
}
