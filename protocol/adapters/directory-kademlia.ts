/** The `Directory` on Kademlia: provider records and signed adverts among the members of one mesh. */

import type { PeerId as Libp2pPeerId } from '@libp2p/interface';
import type { QueryEvent } from '@libp2p/kad-dht';
import { peerIdFromString } from '@libp2p/peer-id';
import { pipe } from 'it-pipe';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { create as createDigest } from 'multiformats/hashes/digest';
import { sha256 } from '../crypto.ts';
import { HelixFlowError, toHelixFlowError } from '../errors.ts';
import type { NetworkKind } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { filterAddresses } from '../peer/address.ts';
import type { Cancel, Clock, Contact, Directory, Log, Random } from '../ports.ts';
import { ms } from '../units.ts';
import { advertKey, type SeenAdverts } from './libp2p/adverts.ts';
import { withoutPeer } from './libp2p/connection.ts';
import { isAbort, type Kad } from './libp2p/kad-service.ts';
import { createProvision, type Provision } from './libp2p/provision.ts';

/** One lookup or put, from its start. */
const lookupMaxMs = 10_000;
/** How long a lookup waits for the first peer to be in the table, when one has just been admitted. */
const readyMaxMs = 1_000;
/** Contacts that one lookup gives. */
const contactsMax = 256;

const sha2256Code = 0x12;

export interface KademliaDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly kad: Kad;
  readonly adverts: SeenAdverts;
  /** True while an admitted connection is open: with `peer`, or with anybody. */
  readonly isConnected: (peer?: string) => boolean;
  /** Drops what `peer` provides, and where it was. */
  readonly forget: (peer: Libp2pPeerId) => void;
}

export interface KademliaOptions {
  readonly self: PeerId;
  readonly network: NetworkKind;
}

type Events = AsyncIterable<QueryEvent>;

const unavailable = (reason: string, cause?: unknown): HelixFlowError<'DIRECTORY_UNAVAILABLE'> =>
  new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason }, { cause });

const cidOf = (key: string): CID => CID.createV1(raw.code, createDigest(sha2256Code, sha256(key)));

/** Undefined for text that looks like a peer id and is none, as an entry may name. */
function readPeer(text: string): Libp2pPeerId | undefined {
  try {
    return peerIdFromString(text);
  } catch (error) {
    // Each part of the decoding has an error of its own.
    if (error instanceof Error) return undefined;
    throw error;
  }
}

/** Passes `events` on and counts the peers that answered with `messageName`, or with anything. */
async function* counted(events: Events, count: () => void, messageName?: string): Events {
  for await (const event of events) {
    if (event.name === 'PEER_RESPONSE' && (messageName ?? event.messageName) === event.messageName) count();
    yield event;
  }
}

async function* contactsIn(events: Events, network: NetworkKind): AsyncIterable<Contact> {
  for await (const event of events) {
    if (event.name !== 'PROVIDER') continue;
    for (const { id, multiaddrs } of event.providers) {
      const addresses = filterAddresses(multiaddrs.map(withoutPeer), network);
      if (addresses.length > 0) yield { peer: id.toString() as PeerId, addresses };
    }
  }
}

async function* distinct(contacts: AsyncIterable<Contact>, self: PeerId): AsyncIterable<Contact> {
  const seen = new Set<PeerId>([self]);
  for await (const contact of contacts) {
    if (seen.has(contact.peer)) continue;
    seen.add(contact.peer);
    yield contact;
    if (seen.size > contactsMax) return;
  }
}

async function drain(events: Events): Promise<void> {
  for await (const _ of events);
}

/** The real `Directory`; made by `createLibp2pNetwork` together with its network. */
export class KademliaDirectory implements Directory {
  readonly #deps: KademliaDeps;
  readonly #options: KademliaOptions;
  readonly #provision: Provision;
  readonly #stop = new AbortController();
  readonly #waiting = new Set<() => void>();

  constructor(deps: KademliaDeps, options: KademliaOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#provision = createProvision(
      {
        ...deps,
        announce: (key, signal) => this.#announce(key, signal),
        forget: (key) => void deps.kad.cancelReprovide(cidOf(key)).catch((error) => this.#log('forget', error)),
      },
      { renewMs: limits.advertRenewMs, retryMs: 250, retryMaxMs: 30_000, settleMs: 5_000 },
    );
    deps.kad.routingTable.addEventListener('peer:add', ({ detail }) => {
      if (!deps.isConnected(detail.toString())) {
        this.gone(detail.toString());
        return;
      }
      for (const proceed of [...this.#waiting]) proceed();
      this.#provision.changed();
    });
  }

  provide(key: string): Cancel {
    if (this.#stop.signal.aborted) return () => {};
    void this.#keep((options) => this.#deps.kad.provide(cidOf(key), options));
    return this.#provision.provide(key);
  }

  async *find(key: string, signal: AbortSignal): AsyncIterable<Contact> {
    if (signal.aborted) return;
    const { self, network } = this.#options;
    let answers = 0;
    let found = 0;
    try {
      await this.#ready(signal);
      using deadline = this.#deadline(signal);
      const contacts = pipe(
        this.#deps.kad.findProviders(cidOf(key), { signal: deadline.signal }),
        (events) => counted(events, () => (answers += 1)),
        (events) => contactsIn(events, network),
        (all) => distinct(all, self),
      );
      for await (const contact of contacts) {
        found += 1;
        yield contact;
      }
    } catch (error) {
      if (signal.aborted) return;
      throw toHelixFlowError(error, (cause) => unavailable('the lookup failed', cause));
    }
    if (found === 0 && answers === 0 && !signal.aborted) throw unavailable('no peer answered');
  }

  async putAdvert(advert: Uint8Array, signal: AbortSignal): Promise<void> {
    const { self } = this.#options;
    const { kad, adverts } = this.#deps;
    adverts.see(self, advert);
    await this.#keep((options) => kad.put(advertKey(self), advert, options));
    await this.#run(signal, 'PUT_VALUE', (options) => kad.put(advertKey(self), advert, options));
  }

  async getAdvert(peer: PeerId, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const { kad, adverts } = this.#deps;
    try {
      await this.#ready(signal);
      using deadline = this.#deadline(signal);
      // The validator sees every record that comes in, also those that libp2p withholds when one stale holder fails.
      await drain(kad.get(advertKey(peer), { signal: deadline.signal }));
    } catch (error) {
      this.#log('get', error);
    }
    return adverts.newest(peer);
  }

  size(): number {
    return this.#deps.kad.routingTable.size;
  }

  async close(): Promise<void> {
    this.#provision.close();
    this.#stop.abort();
  }

  /** This peer is reached elsewhere now: it tells anew what it provides. */
  moved(): void {
    this.#provision.moved();
  }

  /** The last admitted connection with `peer` is gone: nobody asks it any more. */
  gone(peer: string): void {
    const { kad } = this.#deps;
    const id = readPeer(peer);
    if (id !== undefined) kad.routingTable.remove(id).catch((error: unknown) => this.#log('remove', error));
  }

  forget(peer: PeerId): void {
    const id = readPeer(peer);
    if (id === undefined) return;
    this.gone(peer);
    this.#deps.forget(id);
  }

  /** Keeps a record of this peer here, for those who ask it directly: a gateway may have only peers that nobody can ask. */
  async #keep(query: (options: { signal: AbortSignal }) => Events): Promise<void> {
    try {
      // Kademlia stores first and asks others then, which the signal forbids.
      await drain(query({ signal: AbortSignal.abort() }));
    } catch (error) {
      if (!isAbort(error)) this.#log('keep', error);
    }
  }

  #announce(key: string, signal: AbortSignal): Promise<number> {
    return this.#run(signal, 'ADD_PROVIDER', (options) => this.#deps.kad.provide(cidOf(key), options));
  }

  /** Runs a query that leaves something with peers. @returns how many took it. */
  async #run(
    signal: AbortSignal,
    answer: string,
    query: (options: { signal: AbortSignal }) => Events,
  ): Promise<number> {
    let holders = 0;
    try {
      await this.#ready(signal);
      using deadline = this.#deadline(signal);
      await drain(counted(query({ signal: deadline.signal }), () => (holders += 1), answer));
    } catch (error) {
      if (holders === 0) throw toHelixFlowError(error, (cause) => unavailable('the query failed', cause));
    }
    if (holders === 0) throw unavailable('no peer took the record');
    return holders;
  }

  #deadline(signal: AbortSignal): ReturnType<Clock['deadline']> {
    return this.#deps.clock.deadline(ms(lookupMaxMs), AbortSignal.any([signal, this.#stop.signal]));
  }

  /** Resolves once there is somebody to ask. */
  async #ready(signal: AbortSignal): Promise<void> {
    if (this.size() === 0 && this.#deps.isConnected() && !signal.aborted) await this.#nextPeer(signal);
    if (this.#stop.signal.aborted) throw unavailable('it is closed');
    if (this.size() === 0) throw unavailable('no peer of the mesh is connected');
  }

  #nextPeer(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const proceed = (): void => {
        cancel();
        this.#waiting.delete(proceed);
        signal.removeEventListener('abort', proceed);
        resolve();
      };
      const cancel = this.#deps.clock.timer(ms(readyMaxMs), proceed);
      this.#waiting.add(proceed);
      signal.addEventListener('abort', proceed);
    });
  }

  #log(what: string, error: unknown): void {
    this.#deps.log.debug('directory.failed', { what, reason: error instanceof Error ? error.name : 'unknown' });
  }
}
