/** A small mesh on paper, for tests of whoever reads feeds: an issuer, gateways and nodes that sign what a test has them sign. */

import { peerOf } from '../../ledger/authors.ts';
import { type Block, type BlockStart, noHash, signBlock } from '../../ledger/block.ts';
import { type AuthorEntry, type Entry, encodeEntry } from '../../ledger/entry.ts';
import { blockKey, writeBlockRow } from '../../ledger/feed-rows.ts';
import type { Caller, UsageLine } from '../../ledger/line.ts';
import { type LeaseEntry, leaseTag, type PriceEntry } from '../../ledger/money.ts';
import { freePrice, type Price } from '../../ledger/price.ts';
import {
  addTotals,
  type ClaimEntry,
  type CountersignEntry,
  noTotals,
  type RefusedLine,
  type StatementEntry,
  signClaim,
  signCountersign,
  statementHash,
  type TabTotals,
} from '../../ledger/statement.ts';
import { type VerifyOptions, verifyFeeds } from '../../ledger/verify.ts';
import { rowsInOrder } from '../../ledger/verify-rows.ts';
import { sha256, toHex } from '../../protocol/crypto.ts';
import type {
  AccountId,
  AuthorId,
  EpochId,
  LeaseId,
  ModelDigest,
  PeerId,
  PriceId,
  ProcessId,
  RequestId,
  Tag,
} from '../../protocol/ids.ts';

import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { SigningKey, Store } from '../../protocol/ports.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { authorNamed, epochNamed, keyNamed, meshId } from './feed-stage.ts';

const hexNamed = (name: string, bytes: number): string => toHex(sha256(name).subarray(0, bytes));
export const startMs = 1_800_000_000_000;
export const caller: Caller = {
  day: 20_833,
  account: hexNamed('account', 8) as Tag,
  key: hexNamed('key', 8) as Tag,
};
export const price: Price = {
  id: hexNamed('price', 8) as PriceId,
  prompt: 1_000_000,
  cached: 500_000,
  completion: 2_000_000,
};
export const free = freePrice;

/** A process of a gateway. */
export const runNamed = (name: string): ProcessId => hexNamed(name, 16) as ProcessId;

/** A request of one attempt that went well, unless `change` says otherwise: 10 + 20 tokens. */
export function line(run: string, serial: number, change: Partial<UsageLine> = {}): UsageLine {
  const first = change.first ?? serial;
  return {
    run: runNamed(run),
    serial,
    first,
    request: hexNamed(`${run}.${first}`, 16) as RequestId,
    model: 'qwen3',
    digest: hexNamed('qwen3', 32) as ModelDigest,
    caller,
    price: free,
    payer: 'account',
    startMs: unixMs(startMs + serial),
    firstMs: ms(40),
    durationMs: ms(900),
    promptTokens: 10,
    cachedTokens: 0,
    completionTokens: 20,
    nodeTokens: 20,
    outcome: 'done',
    ...change,
  };
}

interface TabEnd {
  readonly number: number;
  readonly previous: Uint8Array;
  readonly totals: TabTotals;
}

/** One epoch of one author; its blocks stand in `blocks` as they are made. */
export class FeedMaker {
  readonly key: SigningKey;
  readonly author: AuthorId;
  readonly peer: PeerId;
  readonly epoch: EpochId;
  readonly role: AuthorEntry['role'];
  readonly blocks: Block[] = [];
  readonly #generation: number;
  readonly #after: Block | undefined;
  readonly #tabs = new Map<PeerId, TabEnd>();

  /** @param after The newest block of the author's epoch before this one. */
  constructor(name: string, role: AuthorEntry['role'], epoch: string = name, after?: Block) {
    this.key = keyNamed(name);
    this.author = authorNamed(name);
    this.peer = peerOf(this.author);
    this.epoch = epochNamed(epoch);
    this.role = role;
    this.#after = after;
    this.#generation = after === undefined ? 0 : after.head.header.generation + 1;
  }

  get #first(): AuthorEntry {
    const header = this.#after?.head.header;
    const after = header === undefined ? {} : { after: { epoch: header.epoch, number: header.number } };
    return { kind: 'author', role: this.role, peer: this.peer, certificate: 'certificate', membership: 'm', ...after };
  }

  /** Signs a block of these entries. */
  block(entries: readonly Entry[], change: Partial<BlockStart> = {}): Block {
    const { author, epoch, key } = this;
    const number = this.blocks.length;
    const before = this.blocks.at(-1) ?? this.#after;
    const all = number === 0 ? [this.#first, ...entries] : entries;
    const place: BlockStart = {
      author,
      epoch,
      generation: this.#generation,
      number,
      previous: before?.head.hash ?? noHash,
      timeMs: unixMs(startMs),
      ...change,
    };
    const block = signBlock(place, all.map(encodeEntry), { meshId, key });
    this.blocks.push(block);
    return block;
  }

  /** The next statement of the tab with this node, in no block yet. */
  statement(node: PeerId, lines: readonly UsageLine[], change: Partial<StatementEntry> = {}): StatementEntry {
    const end = this.#tabs.get(node) ?? { number: 0, previous: new Uint8Array(32), totals: noTotals };
    const totals = addTotals(end.totals, lines);
    const entry: StatementEntry = {
      kind: 'statement',
      node,
      number: end.number,
      previous: end.previous,
      run: lines[0]?.run ?? runNamed('run'),
      lines,
      running: [],
      progress: [],
      totals,
      ...change,
    };
    this.#tabs.set(node, { number: end.number + 1, previous: statementHash(encodeEntry(entry)), totals });
    return entry;
  }

  /** What a node says of a statement of this feed. */
  word(by: SigningKey, entry: StatementEntry, refused: readonly RefusedLine[] = []): CountersignEntry {
    const unsigned = {
      kind: 'countersign',
      node: peerIdOf(by.publicKey),
      epoch: this.epoch,
      number: entry.number,
      statement: statementHash(encodeEntry(entry)),
      refused,
      timeMs: unixMs(startMs),
    } as const;
    return signCountersign(unsigned, { meshId, gateway: this.peer }, by);
  }
}

/** A node claims attempts of a gateway. */
export function claimBy(by: SigningKey, gateway: PeerId, serials: readonly number[]): ClaimEntry {
  const attempts = serials.map((serial) => ({
    run: runNamed('run'),
    serial,
    request: hexNamed(`run.${serial}`, 16) as RequestId,
    startMs: unixMs(startMs),
    promptTokens: 10,
    completionTokens: 20,
  }));
  return signClaim(
    { kind: 'claim', node: peerIdOf(by.publicKey), gateway, attempts, timeMs: unixMs(startMs) },
    meshId,
    by,
  );
}

export const issuer = (): FeedMaker => new FeedMaker('issuer', 'issuer');
export const gateway = (name = 'gateway'): FeedMaker => new FeedMaker(name, 'gateway');
export const node = (name = 'node'): { readonly key: SigningKey; readonly peer: PeerId } => {
  const key = keyNamed(name);
  return { key, peer: peerIdOf(key.publicKey) };
};

/** A store that holds these feeds. */
export async function storeOf(...feeds: readonly { readonly blocks: readonly Block[] }[]): Promise<MemoryStore> {
  const store = new MemoryStore();
  for (const block of feeds.flatMap(({ blocks }) => blocks)) {
    const key = blockKey(block.head.header);
    await store.batch([{ type: 'put', key, value: writeBlockRow(key, block) }]);
  }
  return store;
}

export const auditing: VerifyOptions = { meshId, holds: 'all', mayWrite: () => Promise.resolve(true) };

/** What an auditor finds in a store. */
export const audit = (store: Pick<Store, 'range'>, options: Partial<VerifyOptions> = {}) =>
  verifyFeeds(rowsInOrder(store), { ...auditing, ...options });

export const priced = (change: Partial<PriceEntry> = {}): PriceEntry => ({
  kind: 'price',
  model: 'qwen3',
  fromMs: unixMs(startMs - 1_000_000),
  ...price,
  id: price.id as PriceId,
  ...change,
});

export const lease = (by: FeedMaker, amountMicro: number, change: Partial<LeaseEntry> = {}): LeaseEntry => ({
  kind: 'lease',
  lease: 'ab'.repeat(16) as LeaseId,
  account: 'acct-1' as AccountId,
  holder: by.peer,
  epoch: by.epoch,
  period: 0,
  amountMicro,
  ...change,
});
/** 10 + 20 tokens: 10 + 40 micro-credits. */
export const costMicro = 50;
export const fromLease = { price, lease: leaseTag('ab'.repeat(16) as LeaseId) };
/** Signed before any of the lines began. */
export const early = { timeMs: unixMs(startMs - 1_000_000) };
