/** This peer's adverts: signed, with a sequence number that grows across restarts even when the clock goes back. */

import { decodeValue, encodeValue } from '../codec.ts';
import { isHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { MeshId } from '../ids.ts';
import { limits } from '../limits.ts';
import { type AdvertModel, encodeAdvert, parseAdvert } from '../messages/advert.ts';
import type { Clock, Network, SigningKey, Store } from '../ports.ts';
import { unixMs } from '../units.ts';

interface AdvertiserDeps {
  readonly network: Network;
  readonly store: Store;
  readonly clock: Clock;
}

interface AdvertiserOptions {
  readonly meshId: MeshId;
  readonly role: Role;
  readonly key: SigningKey;
  readonly models: () => readonly AdvertModel[];
}

/** Makes the adverts of this peer and reads those of others. */
export interface Advertiser {
  /** An advert as of now, its number kept before it leaves this process. */
  next(): Promise<Uint8Array>;
  /** Where the peer of an advert says it can be reached; empty for an advert that does not check out. */
  addressesIn(advert: Uint8Array): readonly string[];
}

const sequenceKey = new TextEncoder().encode('advert/sequence');

/** One per data directory: it keeps the sequence number in `deps.store`. */
export function createAdvertiser(deps: AdvertiserDeps, options: AdvertiserOptions): Advertiser {
  const { network, store, clock } = deps;
  const { meshId, role, key, models } = options;

  const nextSequence = async (): Promise<number> => {
    const kept = await store.get(sequenceKey);
    const last = kept === undefined ? 0 : decodeValue(kept);
    const sequence = Math.max(typeof last === 'number' ? last + 1 : 0, clock.wallMs());
    await store.batch([{ type: 'put', key: sequenceKey, value: encodeValue(sequence) }], { sync: true });
    return sequence;
  };

  return {
    next: async () => {
      const sequence = await nextSequence();
      const issuedMs = clock.wallMs();
      return encodeAdvert(
        {
          meshId,
          peer: network.self,
          role,
          sequence,
          issuedMs,
          expiresMs: unixMs(issuedMs + limits.advertTtlMs),
          addresses: network.addresses().slice(0, limits.peerAddressesMax),
          models: models()
            .slice(0, limits.offerModelsMax)
            .map(({ name, digest }) => ({ name, digest })),
        },
        key,
      );
    },
    addressesIn: (advert) => {
      try {
        return parseAdvert(advert, { meshId, nowMs: clock.wallMs() }).addresses;
      } catch (error) {
        if (isHelixFlowError(error, 'ADVERT_INVALID')) return [];
        throw error;
      }
    },
  };
}
