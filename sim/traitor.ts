/** A member that forks: it signs two feeds with one key, and shows one to each half of the gateways. */

import { authorIdOf, type Block, noHash, signBlock } from '../ledger/block.ts';
import { type AuthorEntry, type Entry, encodeEntry } from '../ledger/entry.ts';
import { toHex } from '../protocol/crypto.ts';
import { toHelixFlowError } from '../protocol/errors.ts';
import type { Credentials } from '../protocol/grants.ts';
import type { AuthorId, EpochId, PeerId, ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { MeshRecord } from '../protocol/mesh.ts';
import { encodeLedgerFrame, LEDGER_PROTOCOL, type LedgerFrame, parseLedgerFrame } from '../protocol/messages/ledger.ts';
import { createHello } from '../protocol/peer/hello.ts';
import type { Channel, Connection, Contact, SigningKey } from '../protocol/ports.ts';
import { ms, unixMs } from '../protocol/units.ts';
import { epochMs } from './clock.ts';
import type { SimPorts } from './world.ts';

/** What the two halves are told. */
export type Branch = 'left' | 'right';

interface TraitorOptions {
  readonly mesh: Pick<MeshRecord, 'meshId'>;
  readonly credentials: Credentials;
  /** Signs both feeds. */
  readonly key: SigningKey;
  /** The certificate of the issuer whose feed it is, or that admitted the gateway whose it is. */
  readonly certificate: string;
  /** The first entry of both, and what differs. */
  readonly first: AuthorEntry;
  readonly differs: (branch: Branch) => readonly Entry[];
  /** Those it talks to: the first half is shown one feed, the second half the other. */
  readonly gateways: readonly Contact[];
  /** True time. */
  readonly nowMs: () => number;
}

/** One run of the lying process. */
export class Traitor {
  readonly author: AuthorId;
  /** When it first showed the second feed to anyone; undefined before. */
  shownMs: number | undefined;
  readonly #ports: SimPorts;
  readonly #options: TraitorOptions;
  readonly #epoch: EpochId;
  readonly #early: Channel[] = [];
  readonly #feeds: Readonly<Record<Branch, readonly Block[]>>;

  constructor(ports: SimPorts, options: TraitorOptions) {
    this.#ports = ports;
    this.#options = options;
    this.author = authorIdOf(options.key.publicKey);
    this.#epoch = toHex(ports.random.fork('epoch').bytes(16)) as EpochId;
    const first = this.#sign([options.first], undefined);
    const next = (branch: Branch): Block => this.#sign(options.differs(branch), first);
    this.#feeds = { left: [first, next('left')], right: [first, next('right')] };
    const process = toHex(ports.random.fork('process').bytes(16)) as ProcessId;
    createHello(
      ports,
      { meshId: options.mesh.meshId, process, credentials: () => options.credentials },
      { admitted: (connection) => void this.#show(connection) },
    );
    ports.network.handle(LEDGER_PROTOCOL, { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes }, (channel) =>
      this.#serveInTime(channel),
    );
  }

  /** Dials every gateway; the second half only after `pauseMs`, when the first feed has settled. */
  async start(pauseMs: number): Promise<void> {
    await this.#ports.network.start();
    const { gateways } = this.#options;
    const half = Math.ceil(gateways.length / 2);
    for (const contact of gateways.slice(0, half)) await this.#dial(contact);
    await this.#ports.clock.sleep(ms(pauseMs));
    this.shownMs = this.#options.nowMs();
    for (const channel of this.#early.splice(0)) this.#serveInTime(channel);
    for (const contact of gateways.slice(half)) await this.#dial(contact);
  }

  async #dial({ peer, addresses }: Contact): Promise<void> {
    using deadline = this.#ports.clock.deadline(ms(5_000));
    try {
      await this.#ports.network.connect(peer, addresses, deadline.signal);
    } catch (error) {
      // One that cannot be reached now is not told by it: others tell.
      toHelixFlowError(error, (cause) => {
        throw cause;
      });
    }
  }

  #sign(entries: readonly Entry[], before: Block | undefined): Block {
    const place = {
      author: this.author,
      epoch: this.#epoch,
      generation: 0,
      number: before === undefined ? 0 : before.head.header.number + 1,
      previous: before?.head.hash ?? noHash,
      timeMs: unixMs(Math.floor(epochMs + this.#options.nowMs())),
    };
    const { key, mesh } = this.#options;
    return signBlock(place, entries.map(encodeEntry), { meshId: mesh.meshId, key });
  }

  /** Undefined for one who is to be told nothing. */
  #branchOf(peer: PeerId): Branch | undefined {
    const { gateways } = this.#options;
    const at = gateways.findIndex((contact) => contact.peer === peer);
    if (at < 0) return undefined;
    return at < Math.ceil(gateways.length / 2) ? 'left' : 'right';
  }

  async #show(connection: Connection): Promise<void> {
    if (connection.direction === 'inbound') return;
    using deadline = this.#ports.clock.deadline(ms(5_000));
    try {
      this.#serveInTime(await connection.open(LEDGER_PROTOCOL, deadline.signal));
    } catch (error) {
      toHelixFlowError(error, (cause) => {
        throw cause;
      });
    }
  }

  /** Whoever has dialled it before its time waits. */
  #serveInTime(channel: Channel): void {
    const branch = this.#branchOf(channel.connection.peer);
    if (branch === 'right' && this.shownMs === undefined) this.#early.push(channel);
    else if (branch === undefined) channel.receive({ frame: () => {}, closed: () => {}, drained: () => {} });
    else this.#serve(channel, this.#feeds[branch]);
  }

  #serve(channel: Channel, feed: readonly Block[]): void {
    const send = (frame: LedgerFrame): void => void channel.send(encodeLedgerFrame(frame));
    channel.receive({
      frame: (bytes) => {
        const frame = parseLedgerFrame(bytes);
        if (frame?.type !== 'want' || frame.epoch !== this.#epoch) return;
        const blocks = feed.slice(frame.from).map(({ head, entries }) => ({
          header: head.bytes,
          signature: head.signature,
          entries,
        }));
        send({ type: 'blocks', isLast: true, blocks });
      },
      closed: () => {},
      drained: () => {},
    });
    send({ type: 'tokens', tokens: [{ kind: 'issuer', token: this.#options.certificate }] });
    const last = feed.at(-1)?.head.hash ?? noHash;
    const news = [{ author: this.author, epoch: this.#epoch, count: feed.length, hash: last.slice(0, 16) }];
    send({ type: 'have', isStart: true, isWhole: true, news, changes: [] });
  }
}
