/** What one peer of the simulated directory holds for the others, and the questions it answers. */

import { fromBase64Url, toBase64Url } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { judgeAdvert, parseAdvert } from '../protocol/messages/advert.ts';
import type { Clock, Contact } from '../protocol/ports.ts';

export type Query =
  | { readonly kind: 'find'; readonly key: string }
  | { readonly kind: 'add'; readonly key: string; readonly provider: Contact }
  | { readonly kind: 'get'; readonly key: PeerId }
  | { readonly kind: 'put'; readonly key: PeerId; readonly advert: Uint8Array };

export interface Reply {
  readonly providers: readonly Contact[];
  readonly closer: readonly Contact[];
  readonly advert?: Uint8Array | undefined;
  /** The record was taken. */
  readonly isTaken: boolean;
}

/** A provider stays listed for this long after it last said so, dead or alive. */
const providerValidMs = 600_000;
const providersMax = 20;

const hashes = new Map<string, number>();
const hashesMax = 100_000;

/** A 32-bit hash of a name; remembered, for lookups compare the same few names all the time. */
export function hashOf(text: string): number {
  let hash = hashes.get(text);
  if (hash === undefined) {
    hash = fnv1a(text);
    if (hashes.size >= hashesMax) hashes.clear();
    hashes.set(text, hash);
  }
  return hash;
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const bytesMark = 'bytes:';

/** Queries and replies as JSON; bytes as marked text. */
export const write = (value: Query | Reply): Uint8Array =>
  encoder.encode(
    JSON.stringify(value, (_, item) => (item instanceof Uint8Array ? bytesMark + toBase64Url(item) : item)),
  );

const read = (bytes: Uint8Array): unknown =>
  JSON.parse(decoder.decode(bytes), (_, item) =>
    typeof item === 'string' && item.startsWith(bytesMark) ? fromBase64Url(item.slice(bytesMark.length)) : item,
  );

export const readReply = (bytes: Uint8Array): Reply => read(bytes) as Reply;

export class DirectoryRecords {
  readonly #clock: Clock;
  readonly #meshId: MeshId;
  readonly #providers = new Map<string, Map<PeerId, { readonly contact: Contact; readonly untilMs: number }>>();
  readonly #adverts = new Map<PeerId, Uint8Array>();

  constructor(clock: Clock, meshId: MeshId) {
    this.#clock = clock;
    this.#meshId = meshId;
  }

  providers(key: string): Contact[] {
    const nowMs = this.#clock.nowMs();
    const listed = [...(this.#providers.get(key)?.values() ?? [])];
    return listed
      .filter(({ untilMs }) => untilMs > nowMs)
      .slice(-providersMax)
      .map(({ contact }) => contact);
  }

  advert(peer: PeerId): Uint8Array | undefined {
    const advert = this.#adverts.get(peer);
    return advert !== undefined && this.#isGood(peer, advert) ? advert : undefined;
  }

  /** @throws HelixFlowError ADVERT_INVALID for one that is older than, or differs from, the one known. */
  putAdvert(peer: PeerId, advert: Uint8Array): void {
    const order = judgeAdvert(this.#adverts.get(peer), advert);
    if (order === 'older' || order === 'fork') throw new HelixFlowError('ADVERT_INVALID', { reason: order });
    this.#adverts.set(peer, advert);
  }

  #isGood(peer: PeerId, advert: Uint8Array): boolean {
    try {
      return parseAdvert(advert, { meshId: this.#meshId, nowMs: this.#clock.wallMs() }).peer === peer;
    } catch (error) {
      if (isHelixFlowError(error, 'ADVERT_INVALID')) return false;
      throw error;
    }
  }

  /** The answer to a question of another member. */
  answer(bytes: Uint8Array, closest: (key: string) => Contact[]): Uint8Array {
    const query = read(bytes) as Query;
    const isTaken = this.#take(query);
    const reply: Reply = {
      providers: query.kind === 'find' ? this.providers(query.key) : [],
      closer: closest(query.key),
      advert: query.kind === 'get' ? this.advert(query.key) : undefined,
      isTaken,
    };
    return write(reply);
  }

  #take(query: Query): boolean {
    if (query.kind === 'add') this.#add(query.key, query.provider);
    if (query.kind !== 'put') return true;
    if (!this.#isGood(query.key, query.advert)) return false;
    const order = judgeAdvert(this.#adverts.get(query.key), query.advert);
    if (order === 'older' || order === 'fork') return false;
    this.#adverts.set(query.key, query.advert);
    return true;
  }

  #add(key: string, contact: Contact): void {
    const listed = this.#providers.get(key) ?? new Map();
    this.#providers.set(key, listed);
    listed.delete(contact.peer);
    listed.set(contact.peer, { contact, untilMs: this.#clock.nowMs() + providerValidMs });
  }
}
