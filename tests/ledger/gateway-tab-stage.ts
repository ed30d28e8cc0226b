/** A gateway's tabs over feeds on a disk that can be copied and can die, and nodes that check what they are sent. */

import type { Block, OpenBlock } from '../../ledger/block.ts';
import { isSigned, parseHeader } from '../../ledger/block.ts';
import { createFeeds } from '../../ledger/create-feeds.ts';
import type { AuthorEntry, Entry } from '../../ledger/entry.ts';
import type { EpochHead, Feeds, HeldEntry, OwnFeed } from '../../ledger/feeds.ts';
import { createGatewayTabs, type GatewayTabsPorts } from '../../ledger/gateway-tabs.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { Listeners } from '../../ledger/listeners.ts';
import { freePrice } from '../../ledger/price.ts';
import {
  type CountersignEntry,
  encodeUsage,
  follows,
  parseUsage,
  type RefusedLine,
  type StatementEntry,
  signClaim,
  signCountersign,
  statementHash,
  type TabTotals,
} from '../../ledger/statement.ts';
import type { AttemptEnd, AttemptStart, GatewayTabs, OpenLine, TabLink } from '../../ledger/tabs.ts';
import { keyFromSeed, sha256, toHex } from '../../protocol/crypto.ts';
import type { HelixFlowError } from '../../protocol/errors.ts';
import type { EpochId, MeshId, ModelDigest, PeerId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { isInMerkleTree } from '../../protocol/merkle.ts';
import type { ClaimFrame, CountersignFrame, StatementFrame } from '../../protocol/messages/tab.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { authorNamed, Disk, DiskStore, keyNamed, silentLog } from './feed-stage.ts';

export const meshId = 'ab'.repeat(32) as MeshId;
export const gatewayKey = keyNamed('gateway');
export const gatewayPeer = peerIdOf(gatewayKey.publicKey);
export const gatewayAuthor = authorNamed('gateway');

const hexNamed = (name: string, bytes: number): string => toHex(sha256(name).subarray(0, bytes));
export const runNamed = (name: string): ProcessId => hexNamed(`run ${name}`, 16) as ProcessId;
const caller = { day: 20_000, account: hexNamed('account', 8) as Tag, key: hexNamed('key', 8) as Tag };

export const startAt = (node: PeerId, name: string | number, more: Partial<AttemptStart> = {}): AttemptStart => ({
  node,
  request: hexNamed(`request ${name}`, 16) as RequestId,
  model: 'tiny',
  digest: hexNamed('digest', 32) as ModelDigest,
  caller,
  price: freePrice,
  payer: 'account',
  ...more,
});

export const wholeEnd = (more: Partial<AttemptEnd> = {}): AttemptEnd => ({
  outcome: 'done',
  firstMs: ms(12),
  promptTokens: 100,
  cachedTokens: 10,
  completionTokens: 20,
  nodeTokens: 20,
  ...more,
});

export const firstEntry = (after?: EpochHead): AuthorEntry => ({
  kind: 'author',
  role: 'gateway',
  peer: gatewayPeer,
  certificate: 'certificate',
  membership: 'membership',
  ...(after === undefined ? {} : { after: { epoch: after.epoch, number: after.number } }),
});

/** What a process may be given that is not as it should be. */
export interface GatewayParts {
  readonly store?: DiskStore;
  readonly run?: string;
  /** What `append` waits for before it signs anything. */
  readonly mayWrite?: () => Promise<void>;
  readonly writing?: 'ready' | 'recovering';
  readonly clock?: ManualClock;
}

let runs = 0;

/** One process of a gateway. */
export class GatewayStage {
  readonly clock: ManualClock;
  readonly store: DiskStore;
  readonly run: ProcessId;
  readonly tabs: GatewayTabs;
  readonly feeds: Feeds;
  readonly held: HeldEntry[] = [];
  readonly blocks: (Block | OpenBlock)[] = [];
  readonly refused: (readonly [PeerId, readonly RefusedLine[]])[] = [];
  readonly claimed: (readonly [PeerId, PeerId, number])[] = [];
  /** Entries of each `append` that was asked for. */
  readonly appends: (readonly Entry[])[] = [];
  writing: 'ready' | 'recovering';
  mayWrite: () => Promise<void>;
  #writer: OwnFeed | undefined;

  constructor(parts: GatewayParts = {}) {
    runs += 1;
    const { store = new DiskStore(new Disk()), run = `${runs}`, clock = new ManualClock() } = parts;
    this.clock = clock;
    this.store = store;
    this.run = runNamed(run);
    this.writing = parts.writing ?? 'ready';
    this.mayWrite = parts.mayWrite ?? (async () => {});
    const entries = new Listeners<HeldEntry>();
    const blocks = new Listeners<Block | OpenBlock>();
    entries.add((held) => this.held.push(held));
    blocks.add((block) => this.blocks.push(block));
    this.feeds = createFeeds(
      { store, clock, random: new SimRandom(`stage ${run} ${runs}`), log: silentLog },
      { meshId, holds: 'all', mayWrite: async () => true },
      { entry: (held) => entries.tell(held), added: (block) => blocks.tell(block), forked: () => {} },
    );
    const ledger: GatewayTabsPorts['ledger'] = {
      append: async (_as, all) => {
        this.appends.push(all);
        await this.mayWrite();
        this.#writer ??= this.feeds.write(gatewayKey, firstEntry);
        return await this.#writer.append(all);
      },
      onEntry: (listener) => entries.add(listener),
      onBlock: (listener) => blocks.add(listener),
      own: () => ({ author: gatewayAuthor, epoch: this.#writer?.epoch }),
      heads: () => this.feeds.heads(),
      read: (...place) => this.feeds.read(...place),
      status: () => ({
        authors: 0,
        blocks: 0,
        open: { blocks: 0, entries: 0, damaged: [] },
        frozen: [],
        issuers: [],
        writing: this.writing,
      }),
    };
    this.tabs = createGatewayTabs(
      { clock, store, log: silentLog, ledger },
      { meshId, self: gatewayPeer, run: this.run },
      {
        refused: (node, lines) => this.refused.push([node, lines]),
        claimed: (node, about, attempts) => this.claimed.push([node, about, attempts]),
      },
    );
  }

  static async open(parts: GatewayParts = {}): Promise<GatewayStage> {
    const stage = new GatewayStage(parts);
    await stage.open();
    return stage;
  }

  async open(): Promise<void> {
    await this.feeds.open();
    await this.tabs.open();
  }

  get epoch(): EpochId | undefined {
    return this.#writer?.epoch;
  }

  /** Statements of this gateway that are held, of whatever process. */
  get statements(): StatementEntry[] {
    return this.held.flatMap(({ entry }) => (entry.kind === 'statement' ? [entry] : []));
  }

  get countersigns(): CountersignEntry[] {
    return this.held.flatMap(({ entry }) => (entry.kind === 'countersign' ? [entry] : []));
  }

  /** Begins an attempt and ends it. */
  attempt(
    start: AttemptStart,
    end: AttemptEnd = wholeEnd(),
  ): { readonly line: OpenLine; readonly durable: Promise<void> } {
    const line = this.tabs.begin(start);
    return { line, durable: ended(line, end) };
  }

  /** Lets everything go on that needs no time. */
  async settle(turns = 12): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) await this.clock.turn();
  }
}

/** Ends an attempt; resolves once its line is durable. */
export const ended = (line: OpenLine, end: AttemptEnd = wholeEnd()): Promise<void> =>
  new Promise((resolve, reject) => {
    line.end(end, (error?: HelixFlowError) => (error === undefined ? resolve() : reject(error)));
  });

/** All lines of statements, in the order of the feed. */
export const linesOf = (statements: readonly StatementEntry[]): UsageLine[] => statements.flatMap(({ lines }) => lines);

/** A node that checks each statement as far as the chain and its proof go. */
export class NodeStage implements TabLink {
  readonly key: SigningKey;
  readonly peer: PeerId;
  readonly frames: StatementFrame[] = [];
  /** What does not check, in words. */
  readonly wrong: string[] = [];
  readonly statements: StatementEntry[] = [];
  isBackedUp = false;
  readonly #tips = new Map<EpochId, { number: number; hash: Uint8Array; totals: TabTotals }>();

  constructor(name: string) {
    this.key = keyFromSeed(sha256(`node ${name}`));
    this.peer = peerIdOf(this.key.publicKey);
  }

  sendTab(frame: StatementFrame): boolean {
    this.frames.push(frame);
    const { header, entry, index, path } = frame;
    const head = parseHeader(header, frame.signature);
    if (!isSigned(head, meshId) || head.header.author !== gatewayAuthor) this.wrong.push('signature');
    if (!isInMerkleTree(entry, { index, count: head.header.count, path }, head.header.root)) this.wrong.push('path');
    const statement = parseUsage(entry);
    if (statement.kind !== 'statement' || statement.node !== this.peer) this.wrong.push('statement');
    else this.#take(head.header.epoch, statement, statementHash(entry));
    return !this.isBackedUp;
  }

  #take(epoch: EpochId, statement: StatementEntry, hash: Uint8Array): void {
    const before = this.#tips.get(epoch);
    if (before !== undefined && statement.number <= before.number) return;
    if (!follows(statement, before)) this.wrong.push(`chain ${statement.number}`);
    this.#tips.set(epoch, { number: statement.number, hash, totals: statement.totals });
    this.statements.push(statement);
  }

  /** What it says of a statement. */
  sign(frame: StatementFrame, refused: readonly RefusedLine[] = [], change: Partial<CountersignEntry> = {}) {
    const { epoch } = parseHeader(frame.header, frame.signature).header;
    const parsed = parseUsage(frame.entry);
    const number = parsed.kind === 'statement' ? parsed.number : -1;
    const said = {
      kind: 'countersign',
      node: this.peer,
      epoch,
      number,
      statement: statementHash(frame.entry),
    } as const;
    const entry = { ...said, refused, timeMs: unixMs(1_700_000_000_000), ...change };
    return signCountersign(entry, { meshId, gateway: gatewayPeer }, this.key);
  }

  answer(frame: StatementFrame, refused: readonly RefusedLine[] = []): CountersignFrame {
    return { type: 'countersign', entry: encodeUsage(this.sign(frame, refused)) };
  }

  /** Answers all frames that came since. */
  answerAll(tabs: GatewayTabs): void {
    for (const frame of this.frames.splice(0)) tabs.received(this.peer, this.answer(frame));
  }

  claim(serials: readonly number[], more: { gateway?: PeerId; run?: ProcessId; timeMs?: number } = {}): ClaimFrame {
    const { gateway = gatewayPeer, run = runNamed('claimed'), timeMs = 1_700_000_000_000 } = more;
    const attempts = serials.map((serial) => ({
      run,
      serial,
      request: hexNamed(`claimed ${serial}`, 16) as RequestId,
      startMs: unixMs(1_700_000_000_000),
      promptTokens: 5,
      completionTokens: 7,
    }));
    const claim = { kind: 'claim', node: this.peer, gateway, attempts, timeMs: unixMs(timeMs) } as const;
    return { type: 'claim', entry: encodeUsage(signClaim(claim, meshId, this.key)) };
  }
}
