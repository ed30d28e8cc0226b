/** What Kademlia keeps for others, in memory and bounded: provider records with a quota for each peer, and signed records. */

import { NotFoundError } from '@libp2p/interface';
import type { KadDHTComponents } from '@libp2p/kad-dht';
import { HelixFlowError } from '../../errors.ts';

type Datastore = KadDHTComponents['datastore'];
type Key = Parameters<Datastore['put']>[0];

interface Entry {
  readonly key: Key;
  readonly value: Uint8Array;
}

export interface KadStoreOptions {
  /** Its own records are never refused. */
  readonly self: string;
  /** Keys that one other peer may provide here: a node's models, and a few. */
  readonly keysPerPeerMax: number;
  /** All provider records here; new ones are refused above that until old ones expire. */
  readonly providersMax: number;
  /** Signed records here; above that the one put longest ago goes. */
  readonly recordsMax: number;
}

const full = (reason: string): HelixFlowError => new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason });

/** Providers by the directory of their key, so that a lookup of one content key reads no other. */
class Providers {
  readonly #options: KadStoreOptions;
  readonly #groups = new Map<string, Map<string, Entry>>();
  readonly #perPeer = new Map<string, number>();
  #count = 0;

  constructor(options: KadStoreOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#count;
  }

  put(entry: Entry): void {
    const [name, peer] = split(entry.key);
    const group = this.#groups.get(name);
    if (group?.has(peer) !== true) this.#admit(peer);
    if (group === undefined) this.#groups.set(name, new Map([[peer, entry]]));
    else group.set(peer, entry);
  }

  #admit(peer: string): void {
    const held = this.#perPeer.get(peer) ?? 0;
    const { self, keysPerPeerMax, providersMax } = this.#options;
    if (peer !== self && held >= keysPerPeerMax) throw full('one peer provides too many keys');
    if (peer !== self && this.#count >= providersMax) throw full('too many provider records');
    this.#perPeer.set(peer, held + 1);
    this.#count += 1;
  }

  delete(key: Key): void {
    const [name, peer] = split(key);
    const group = this.#groups.get(name);
    if (group?.delete(peer) !== true) return;
    if (group.size === 0) this.#groups.delete(name);
    const held = (this.#perPeer.get(peer) ?? 1) - 1;
    if (held > 0) this.#perPeer.set(peer, held);
    else this.#perPeer.delete(peer);
    this.#count -= 1;
  }

  forget(peer: string): void {
    if (!this.#perPeer.delete(peer)) return;
    for (const [name, group] of this.#groups) {
      if (group.delete(peer)) this.#count -= 1;
      if (group.size === 0) this.#groups.delete(name);
    }
  }

  /** A copy, since the caller may delete while it reads. */
  under(prefix: string): Entry[] {
    const exact = this.#groups.get(prefix);
    if (exact !== undefined) return [...exact.values()];
    const groups = [...this.#groups].filter(([name]) => name.startsWith(prefix));
    return groups.flatMap(([, group]) => [...group.values()]);
  }
}

function split(key: Key): [directory: string, name: string] {
  const text = key.toString();
  const at = text.lastIndexOf('/');
  return [text.slice(0, at), text.slice(at + 1)];
}

const isProvider = (key: Key): boolean => key.toString().includes('/provider/');

/** The part of a datastore that Kademlia uses, and what its owner may do with it. */
export interface KadStore extends Pick<Datastore, 'put' | 'get' | 'delete' | 'query'> {
  /** Entries that it holds. */
  readonly size: number;
  /** Drops all that `peer` provides. */
  forget(peer: string): void;
}

export function createKadStore(options: KadStoreOptions): KadStore {
  const providers = new Providers(options);
  const records = new Map<string, Entry>();
  const putRecord = (entry: Entry): void => {
    const name = entry.key.toString();
    records.delete(name);
    records.set(name, entry);
    const [oldest] = records.keys();
    if (records.size > options.recordsMax && oldest !== undefined) records.delete(oldest);
  };
  return {
    get size() {
      return providers.size + records.size;
    },
    forget: (peer) => providers.forget(peer),
    put: async (key, value) => {
      if (isProvider(key)) providers.put({ key, value });
      else putRecord({ key, value });
      return key;
    },
    get: async (key) => {
      const entry = records.get(key.toString());
      if (entry === undefined) throw new NotFoundError();
      return entry.value;
    },
    delete: async (key) => {
      if (isProvider(key)) providers.delete(key);
      else records.delete(key.toString());
    },
    query: async function* ({ prefix }) {
      yield* providers.under(prefix ?? '');
    },
  };
}
