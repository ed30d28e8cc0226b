/** The simulated directory: a small Kademlia of its own over the simulated network, with its delays and its stale hints. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { judgeAdvert, parseAdvert } from '../protocol/messages/advert.ts';
import { isRelayed } from '../protocol/peer/address.ts';
import type { Cancel, Channel, Clock, Contact, Directory } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import type { SimConnection } from './connection.ts';
import { DirectoryRecords, hashOf, type Query, type Reply, readReply, write } from './directory-records.ts';
import type { SimNetwork } from './network.ts';
import type { SimRandom } from './random.ts';

const KAD_PROTOCOL = '/helixflow-sim/kad/1';
/** Peers that hold a record, and that a lookup asks at least. */
const closestCount = 8;
const askedAtOnce = 3;
const askTimeoutMs = ms(3_000);
const provideAgainMs = ms(60_000);
/** New peers come in groups: they are told together. */
const provideSoonMs = 300;

const unavailable = (reason: string): HelixFlowError => new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason });

export interface SimDirectoryDeps {
  readonly network: SimNetwork;
  readonly clock: Clock;
  readonly random: SimRandom;
  readonly meshId: MeshId;
}

export class SimDirectory implements Directory {
  readonly #deps: SimDirectoryDeps;
  readonly #records: DirectoryRecords;
  /** Who can be asked: peers that this one admitted and is connected to. */
  readonly #table = new Map<PeerId, SimConnection>();
  readonly #provided = new Set<string>();
  #isProvideDue = false;
  #isClosed = false;

  constructor(deps: SimDirectoryDeps) {
    this.#deps = deps;
    this.#records = new DirectoryRecords(deps.clock, deps.meshId);
    const handler = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };
    deps.network.handle(KAD_PROTOCOL, handler, (channel) => this.#serve(channel));
    deps.network.onAdmitted((connection) => this.#admitted(connection));
    deps.network.onMoved(() => this.#provideSoon());
    deps.clock.timer(provideAgainMs, () => this.#provideAgain());
  }

  #admitted(connection: SimConnection): void {
    this.#table.set(connection.peer, connection);
    connection.onClose(() => {
      if (this.#table.get(connection.peer) === connection) this.#table.delete(connection.peer);
    });
    this.#provideSoon();
  }

  size(): number {
    return this.#table.size;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#provided.clear();
    this.#table.clear();
  }

  provide(key: string): Cancel {
    this.#provided.add(key);
    this.#provideSoon();
    return () => this.#provided.delete(key);
  }

  #provideSoon(): void {
    if (this.#isProvideDue || this.#isClosed) return;
    this.#isProvideDue = true;
    this.#deps.clock.timer(ms(provideSoonMs * (0.5 + this.#deps.random.float())), () => {
      this.#isProvideDue = false;
      void this.#provideAll();
    });
  }

  #provideAgain(): void {
    if (this.#isClosed) return;
    void this.#provideAll();
    this.#deps.clock.timer(provideAgainMs, () => this.#provideAgain());
  }

  async #provideAll(): Promise<void> {
    const { self } = this.#deps.network;
    using deadline = this.#deps.clock.deadline(ms(20_000));
    for (const key of [...this.#provided]) {
      const addresses = this.#deps.network.addresses();
      if (addresses.length === 0 || this.#table.size === 0 || this.#isClosed) return;
      const query: Query = { kind: 'add', key, provider: { peer: self, addresses } };
      await this.#tellClosest(key, query, deadline.signal);
    }
  }

  async *find(key: string, signal: AbortSignal): AsyncGenerator<Contact> {
    const seen = new Set<PeerId>([this.#deps.network.self]);
    for (const contact of this.#records.providers(key)) {
      if (seen.has(contact.peer)) continue;
      seen.add(contact.peer);
      yield contact;
    }
    for await (const { reply } of this.#lookup(key, { kind: 'find', key }, signal)) {
      for (const contact of reply.providers) {
        if (seen.has(contact.peer)) continue;
        seen.add(contact.peer);
        yield contact;
      }
    }
  }

  async putAdvert(advert: Uint8Array, signal: AbortSignal): Promise<void> {
    const { self } = this.#deps.network;
    const { peer } = parseAdvert(advert, { meshId: this.#deps.meshId, nowMs: this.#deps.clock.wallMs() });
    if (peer !== self) throw new HelixFlowError('ADVERT_INVALID', { reason: 'of another peer' });
    this.#records.putAdvert(self, advert);
    const told = await this.#tellClosest(self, { kind: 'put', key: self, advert }, signal);
    if (told === 0) throw unavailable('nobody took the advert');
  }

  async getAdvert(peer: PeerId, signal: AbortSignal): Promise<Uint8Array | undefined> {
    let newest = this.#records.advert(peer);
    for await (const { reply } of this.#lookup(peer, { kind: 'get', key: peer }, signal)) {
      const { advert } = reply;
      if (advert !== undefined && this.#isOf(peer, advert) && judgeAdvert(newest, advert) === 'newer') newest = advert;
    }
    return newest;
  }

  #isOf(peer: PeerId, advert: Uint8Array): boolean {
    try {
      const checking = { meshId: this.#deps.meshId, nowMs: this.#deps.clock.wallMs() };
      return parseAdvert(advert, checking).peer === peer;
    } catch (error) {
      if (isHelixFlowError(error, 'ADVERT_INVALID')) return false;
      throw error;
    }
  }

  async #tellClosest(key: string, query: Query, signal: AbortSignal): Promise<number> {
    const answered: PeerId[] = [];
    for await (const { peer } of this.#lookup(key, { kind: 'find', key: '' }, signal)) answered.push(peer);
    const closest = closestTo(key, answered);
    const told = await Promise.all(closest.map((peer) => this.#ask({ peer, addresses: [] }, query, signal)));
    return told.filter((reply) => reply?.isTaken === true).length;
  }

  /** Asks ever closer peers until the closest ones known have been asked. */
  async *#lookup(
    key: string,
    query: Query,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly peer: PeerId; readonly reply: Reply }> {
    if (this.#table.size === 0 || this.#isClosed) throw unavailable('nobody can be asked');
    const known = new Map<PeerId, Contact>();
    for (const [peer] of this.#table) known.set(peer, { peer, addresses: [] });
    const asked = new Set<PeerId>([this.#deps.network.self]);
    while (!signal.aborted) {
      const closest = closestTo(key, known.keys());
      const next = closest.filter((peer) => !asked.has(peer)).slice(0, askedAtOnce);
      if (next.length === 0) return;
      for (const peer of next) asked.add(peer);
      const contacts = next.map((peer) => known.get(peer) as Contact);
      const replies = await Promise.all(contacts.map((contact) => this.#ask(contact, query, signal)));
      for (const [index, reply] of replies.entries()) {
        const peer = next[index] as PeerId;
        if (reply === undefined) {
          known.delete(peer);
          continue;
        }
        for (const closer of reply.closer) if (!asked.has(closer.peer)) known.set(closer.peer, closer);
        yield { peer, reply };
      }
    }
  }

  /** One question and its answer; nothing when there is none in time. */
  async #ask(contact: Contact, query: Query, signal: AbortSignal): Promise<Reply | undefined> {
    const { clock, network } = this.#deps;
    using deadline = clock.deadline(askTimeoutMs, signal);
    try {
      const known = this.#table.get(contact.peer);
      const connection = known ?? (await network.connect(contact.peer, contact.addresses, deadline.signal));
      while (!connection.isAdmitted) {
        if (!connection.isOpen) return undefined;
        await clock.sleep(ms(20), deadline.signal);
      }
      return await exchange(await connection.open(KAD_PROTOCOL, deadline.signal), query, deadline.signal);
    } catch (error) {
      if (isHelixFlowError(error) || signal.aborted) return undefined;
      throw error;
    }
  }

  #serve(channel: Channel): void {
    channel.receive({
      frame: (bytes) => {
        channel.send(this.#records.answer(bytes, (key) => this.#closest(key, channel.connection.peer)));
        channel.end();
      },
      closed: () => {},
      drained: () => {},
    });
  }

  #closest(key: string, except: PeerId): Contact[] {
    return (
      closestTo(key, this.#table.keys())
        .filter((peer) => peer !== except)
        .map((peer) => ({ peer, addresses: this.#table.get(peer)?.remoteListens ?? [] }))
        // The directory asks nobody through a relay.
        .map(({ peer, addresses }) => ({ peer, addresses: addresses.filter((address) => !isRelayed(address)) }))
        .filter(({ addresses }) => addresses.length > 0)
    );
  }
}

/** The closest few of `peers`, closest first, without sorting the rest. */
function closestTo(key: string, peers: Iterable<PeerId>): PeerId[] {
  const target = hashOf(key);
  const closest: PeerId[] = [];
  const distances: number[] = [];
  for (const peer of peers) {
    const distance = (hashOf(peer) ^ target) >>> 0;
    let at = closest.length;
    if (at === closestCount && distance >= (distances[at - 1] ?? 0)) continue;
    while (at > 0 && (distances[at - 1] ?? 0) > distance) at -= 1;
    closest.splice(at, 0, peer);
    distances.splice(at, 0, distance);
    closest.length = Math.min(closest.length, closestCount);
    distances.length = closest.length;
  }
  return closest;
}

/** Sends the question and takes the first frame for the answer. */
function exchange(channel: Channel, query: Query, signal: AbortSignal): Promise<Reply | undefined> {
  return new Promise((resolve) => {
    const giveUp = (): void => {
      channel.abort(new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason: 'no answer' }));
    };
    const settle = (reply: Reply | undefined): void => {
      signal.removeEventListener('abort', giveUp);
      resolve(reply);
    };
    channel.receive({
      frame: (bytes) => settle(readReply(bytes)),
      closed: () => settle(undefined),
      drained: () => {},
    });
    channel.send(write(query));
    channel.end();
    if (signal.aborted) giveUp();
    else signal.addEventListener('abort', giveUp, { once: true });
  });
}
