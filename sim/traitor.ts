/** A member that lies: it holds an issuer's key and signs two feeds with it, one for each half of the gateways. */

import { authorIdOf, type Block, noHash, signBlock } from '../ledger/block.ts';
import { type Entry, encodeEntry } from '../ledger/entry.ts';
import { toHex } from '../protocol/crypto.ts';
import { toHelixFlowError } from '../protocol/errors.ts';
import type { Credentials } from '../protocol/grants.ts';
import type { AuthorId, EpochId, ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import { encodeLedgerFrame, LEDGER_PROTOCOL, type LedgerFrame, parseLedgerFrame } from '../protocol/messages/ledger.ts';
import { createHello } from '../protocol/peer/hello.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Channel, Connection, Contact } from '../protocol/ports.ts';
import { ms, unixMs } from '../protocol/units.ts';
import { epochMs } from './clock.ts';
import type { SimPorts } from './world.ts';

interface TraitorOptions {
  readonly mesh: Pick<MeshRecord, 'meshId'>;
  readonly credentials: Credentials;
  /** An issuer that the root has named. */
  readonly issuer: IssuerRecord;
  /** Those it talks to: the first half is shown one feed, the second half the other. */
  readonly gateways: readonly Contact[];
  /** True time. */
  readonly nowMs: () => number;
}

/** What the two halves are told. */
type Branch = 'left' | 'right';

/** One run of the lying process. */
export class Traitor {
  readonly author: AuthorId;
  /** When it first showed the second feed to anyone; undefined before. */
  shownMs: number | undefined;
  readonly #ports: SimPorts;
  readonly #options: TraitorOptions;
  readonly #epoch: EpochId;
  readonly #feeds: Readonly<Record<Branch, readonly Block[]>>;

  constructor(ports: SimPorts, options: TraitorOptions) {
    this.#ports = ports;
    this.#options = options;
    this.author = authorIdOf(options.issuer.key.publicKey);
    this.#epoch = toHex(ports.random.fork('epoch').bytes(16)) as EpochId;
    const first = this.#sign([this.#authorEntry()], undefined);
    this.#feeds = { left: [first, this.#next(first, 'left')], right: [first, this.#next(first, 'right')] };
    const process = toHex(ports.random.fork('process').bytes(16)) as ProcessId;
    createHello(
      ports,
      { meshId: options.mesh.meshId, process, credentials: () => options.credentials },
      { admitted: (connection) => void this.#show(connection) },
    );
    // Whoever dials it is told nothing: which half that is, only its own dialling decides.
    ports.network.handle(LEDGER_PROTOCOL, { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes }, (channel) =>
      channel.receive({ frame: () => {}, closed: () => {}, drained: () => {} }),
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

  #authorEntry(): Entry {
    const { certificate } = this.#options.issuer;
    return { kind: 'author', role: 'issuer', peer: this.#ports.network.self, certificate, membership: '' };
  }

  #next(before: Block, branch: Branch): Block {
    // Somebody who is not there: what counts is that the halves are told different things.
    const peer = peerIdOf(this.#options.issuer.key.publicKey);
    return this.#sign([{ kind: 'ban', peer, ban: (branch === 'left' ? '0' : '1').repeat(32) }], before);
  }

  #sign(entries: readonly Entry[], before: Block | undefined): Block {
    const place = {
      author: this.author,
      epoch: this.#epoch,
      generation: 0,
      number: before === undefined ? 0 : before.head.header.number + 1,
      previous: before?.head.hash ?? noHash,
      timeMs: unixMs(epochMs),
    };
    const { issuer, mesh } = this.#options;
    return signBlock(place, entries.map(encodeEntry), { meshId: mesh.meshId, key: issuer.key });
  }

  #branchOf(connection: Connection): Branch {
    const { gateways } = this.#options;
    const at = gateways.findIndex(({ peer }) => peer === connection.peer);
    return at < Math.ceil(gateways.length / 2) ? 'left' : 'right';
  }

  async #show(connection: Connection): Promise<void> {
    if (connection.direction === 'inbound') return;
    using deadline = this.#ports.clock.deadline(ms(5_000));
    const feed = this.#feeds[this.#branchOf(connection)];
    try {
      const channel = await connection.open(LEDGER_PROTOCOL, deadline.signal);
      this.#serve(channel, feed);
    } catch (error) {
      toHelixFlowError(error, (cause) => {
        throw cause;
      });
    }
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
    send({ type: 'tokens', tokens: [{ kind: 'issuer', token: this.#options.issuer.certificate }] });
    const last = feed.at(-1)?.head.hash ?? noHash;
    const news = [{ author: this.author, epoch: this.#epoch, count: feed.length, hash: last.slice(0, 16) }];
    send({ type: 'have', isStart: true, isWhole: true, news, changes: [] });
  }
}
