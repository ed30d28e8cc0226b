/** Arbitrary frames of the ledger's wire, for property tests. */

import fc from 'fast-check';
import { toHex } from '../../protocol/crypto.ts';
import type { AuthorId, EpochId, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import {
  type Heartbeat,
  haveHashBytes,
  haveItemsMax,
  heartbeatHeadsMax,
  type LedgerFrame,
  tallyModulus,
  tokensFrameBytes,
  type WireBlock,
  type WireHead,
  type WireOpenBlock,
  type WireSlot,
  wantMinBytes,
  wireHeaderMaxBytes,
} from '../../protocol/messages/ledger.ts';
import { unixMs } from '../../protocol/units.ts';

const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const authors = exactly(32).map(toHex) as fc.Arbitrary<AuthorId>;
const epochs = exactly(16).map(toHex) as fc.Arbitrary<EpochId>;
const hashes = exactly(haveHashBytes);
const counts = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }));
const numbers = fc.oneof(fc.nat(300), fc.maxSafeNat());
const heads: fc.Arbitrary<WireHead> = fc.record({
  header: fc.uint8Array({ maxLength: wireHeaderMaxBytes }),
  signature: exactly(64),
});
const entries = fc.uint8Array({ maxLength: 300 });
const blocks: fc.Arbitrary<WireBlock> = fc
  .tuple(heads, fc.array(entries, { maxLength: 6 }))
  .map(([head, list]) => ({ ...head, entries: list }));
const slots: fc.Arbitrary<WireSlot> = fc.oneof(
  entries.map((entry) => ({ entry })),
  exactly(32).map((leaf) => ({ leaf })),
);
const openBlocks: fc.Arbitrary<WireOpenBlock> = fc
  .tuple(heads, fc.array(slots, { maxLength: 6 }))
  .map(([head, list]) => ({ ...head, slots: list }));

/** One arbitrary for each type of frame. */
export const ledgerFramesByType = {
  tokens: fc.record({
    type: fc.constant('tokens'),
    tokens: fc.array(
      fc.record({
        kind: fc.constantFrom('issuer', 'revocation', 'lift'),
        token: fc.string({ maxLength: 40 }),
      }),
      { maxLength: 6 },
    ),
  }),
  have: fc.record({
    type: fc.constant('have'),
    isStart: fc.boolean(),
    isWhole: fc.boolean(),
    news: fc.array(fc.record({ author: authors, epoch: epochs, count: counts, hash: hashes }), { maxLength: 6 }),
    changes: fc.array(fc.record({ index: numbers, count: counts, hash: hashes }), { maxLength: 6 }),
  }),
  want: fc.record({
    type: fc.constant('want'),
    author: authors,
    epoch: epochs,
    from: numbers,
    maxBytes: fc.integer({ min: wantMinBytes, max: limits.ledgerWindowBytes }),
  }),
  blocks: fc.record({
    type: fc.constant('blocks'),
    isLast: fc.boolean(),
    blocks: fc.array(blocks, { maxLength: 4 }),
  }),
  open: fc.record({
    type: fc.constant('open'),
    isLast: fc.boolean(),
    blocks: fc.array(openBlocks, { maxLength: 4 }),
  }),
  push: fc.record({ type: fc.constant('push'), block: blocks }),
  proof: fc.record({ type: fc.constant('proof'), a: heads, b: heads }),
  heartbeat: fc.record({
    type: fc.constant('heartbeat'),
    bytes: fc.uint8Array({ maxLength: 600 }),
    signature: exactly(64),
  }),
  tally: fc.record({
    type: fc.constant('tally'),
    epochs: numbers,
    blocks: fc.integer({ min: 0, max: tallyModulus - 1 }),
  }),
  again: fc.record({ type: fc.constant('again') }),
} as const satisfies { readonly [Type in LedgerFrame['type']]: fc.Arbitrary<LedgerFrame & { readonly type: Type }> };

export const ledgerFrames: fc.Arbitrary<LedgerFrame> = fc.oneof(...Object.values(ledgerFramesByType));

export const heartbeats: fc.Arbitrary<Heartbeat> = fc.record({
  issuer: authors,
  holder: fc.stringMatching(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/) as fc.Arbitrary<PeerId>,
  timeMs: numbers.map(unixMs),
  heads: fc.array(fc.record({ epoch: epochs, number: numbers, hash: exactly(32) }), { maxLength: heartbeatHeadsMax }),
});

const full = (length: number): Uint8Array => new Uint8Array(length).fill(0xff);
const head = { header: full(wireHeaderMaxBytes), signature: full(64) };
const count = { count: Number.MAX_SAFE_INTEGER, hash: full(haveHashBytes) };
const author = 'ff'.repeat(32) as AuthorId;
const epoch = 'ff'.repeat(16) as EpochId;

/** The largest of each that a sender may have to send. */
export const largestLedgerFrames: readonly LedgerFrame[] = [
  {
    type: 'tokens',
    tokens: Array.from({ length: tokensFrameBytes / limits.tokenMaxChars }, () => ({
      kind: 'issuer',
      token: 'x'.repeat(limits.tokenMaxChars),
    })),
  },
  {
    type: 'have',
    isStart: true,
    isWhole: true,
    news: Array.from({ length: haveItemsMax }, () => ({ author, epoch, ...count })),
    changes: Array.from({ length: haveItemsMax }, () => ({ index: 0xffff_ffff, ...count })),
  },
  {
    type: 'open',
    isLast: true,
    blocks: [{ ...head, slots: Array.from({ length: limits.blockEntriesMax }, () => ({ leaf: full(32) })) }],
  },
  {
    type: 'push',
    block: { ...head, entries: [full(limits.entryMaxBytes), full(limits.blockMaxBytes - limits.entryMaxBytes)] },
  },
];
