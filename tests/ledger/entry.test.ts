/** Entries: one text for each, nothing else is read, and who may see it follows from its first bytes. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Entry, encodeEntry, isOpenEntry, parseEntry } from '../../ledger/entry.ts';
import { momentMaxMs } from '../../ledger/line.ts';
import { encodeValue, type Value } from '../../protocol/codec.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { type KeyTerms, keyGatewaysMax, keyModelsMax, rateMax } from '../../protocol/grants.ts';
import type { AccountId, EpochId, KeyId, OwnerId, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { givenPreferences, preferred } from '../../protocol/preferences.ts';
import { unixMs } from '../../protocol/units.ts';
import '../support/seed.ts';
import { budgets, moneyByKind, usageByKind } from './usage-entries.ts';

const hexText = (bytes: number) =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((drawn) => Buffer.from(drawn).toString('hex'));
const peer = fc.stringMatching(/^[1-9A-HJ-NP-Za-km-z]{8,64}$/).map((text) => text as PeerId);
const account = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).map((text) => text as AccountId & OwnerId);
const key = hexText(8).map((text) => text as KeyId);
const moment = fc.integer({ min: 0, max: momentMaxMs }).map(unixMs);
const rate = fc.integer({ min: 1, max: rateMax });
const rates = fc.record({ rpm: rate, tpm: rate, concurrency: rate }, { requiredKeys: [] });
const nodes = fc.array(peer, { maxLength: 3 });
const wishes = fc
  .record(
    {
      prefer: fc.constantFrom(...preferred),
      region: fc.stringMatching(/^[a-z0-9-]{1,32}$/),
      allow: nodes,
      deny: nodes,
    },
    { requiredKeys: [] },
  )
  .map((drawn) => givenPreferences(drawn) ?? { prefer: 'price' as const });
const terms = fc
  .record(
    {
      models: fc.array(fc.string({ maxLength: limits.modelNameMaxChars }), { maxLength: Math.min(4, keyModelsMax) }),
      limits: rates,
      expiresMs: moment,
      preferences: wishes,
    },
    { requiredKeys: ['models', 'limits'] },
  )
  .map((drawn): KeyTerms => drawn);

const kinds: { readonly [Kind in Exclude<Entry['kind'], 'other'>]: fc.Arbitrary<Entry & { kind: Kind }> } = {
  author: fc.record(
    {
      kind: fc.constant('author' as const),
      role: fc.constantFrom('issuer' as const, 'gateway' as const),
      peer,
      certificate: fc.string(),
      membership: fc.string(),
      after: fc.record({ epoch: hexText(16).map((text) => text as EpochId), number: fc.maxSafeNat() }),
    },
    { requiredKeys: ['kind', 'role', 'peer', 'certificate', 'membership'] },
  ),
  member: fc.record({
    kind: fc.constant('member' as const),
    invite: fc.oneof(fc.constant(''), hexText(16)),
    peer,
    role: fc.constantFrom('node' as const, 'gateway' as const),
    owner: account,
    expiresMs: moment,
  }),
  ban: fc.record({ kind: fc.constant('ban' as const), peer, ban: hexText(16) }),
  unban: fc.record({ kind: fc.constant('unban' as const), peer, bans: fc.array(hexText(16), { maxLength: 64 }) }),
  account: fc.record(
    { kind: fc.constant('account' as const), account, limits: rates, strict: fc.boolean(), budget: budgets },
    { requiredKeys: ['kind', 'account', 'limits', 'strict'] },
  ),
  key: fc.record(
    {
      kind: fc.constant('key' as const),
      key,
      account,
      role: fc.constantFrom('user' as const, 'operator' as const, 'admin' as const),
      gateways: fc.array(peer, { maxLength: Math.min(3, keyGatewaysMax) }),
      terms,
      replaces: key,
    },
    { requiredKeys: ['kind', 'key', 'account', 'role', 'gateways', 'terms'] },
  ),
  terms: fc.record({ kind: fc.constant('terms' as const), key, terms }),
  revoke: fc.record({ kind: fc.constant('revoke' as const), key, fromMs: moment, cut: fc.boolean() }),
  erase: fc.record({ kind: fc.constant('erase' as const), account }),
  ...moneyByKind,
  ...usageByKind,
};
const open: readonly Entry['kind'][] = ['author', 'member', 'ban', 'unban', 'price'];
/** Numbers that have been given out. */
const known: readonly number[] = [0, 1, 2, 3, 4, 64, 65, 66, 67, 68, 69, 70, 128, 129, 130, 131];
const anyEntry = fc.oneof(...Object.values(kinds)) as fc.Arbitrary<Entry>;

/** What reading comes to: an entry, or the code of the error. */
function outcomeOf(bytes: Uint8Array): Entry | string {
  try {
    return parseEntry(bytes);
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

test('every entry is read as it was written, and seen by those who may', ({ expect }) => {
  fc.assert(
    fc.property(anyEntry, (entry) => {
      const bytes = encodeEntry(entry);
      const read = parseEntry(bytes);
      // Lone surrogates cannot be written.
      expect(encodeEntry(read)).toEqual(bytes);
      expect(read.kind).toBe(entry.kind);
      if ('terms' in read && 'terms' in entry) expect(read.terms.preferences).toEqual(entry.terms.preferences);
      expect(isOpenEntry(bytes)).toBe(open.includes(entry.kind));
    }),
    { numRuns: 600 },
  );
});

test('known entries keep their bytes for ever', ({ expect }) => {
  const id = 'ab'.repeat(8) as KeyId;
  const texts = [
    { kind: 'ban', peer: '12D3KooWPeer' as PeerId, ban: '01'.repeat(16) } as const,
    { kind: 'revoke', key: id, fromMs: unixMs(1_700_000_000_000), cut: true } as const,
    { kind: 'terms', key: id, terms: { models: ['qwen*'], limits: { rpm: 60 } } } as const,
    { kind: 'account', account: 'team' as AccountId, limits: { tpm: 1_000 }, strict: false } as const,
    { kind: 'erase', account: 'team' as AccountId } as const,
  ].map((entry) => Buffer.from(encodeEntry(entry)).toString('hex'));
  expect(texts).toEqual([
    '83026c313244334b6f6f57506565725001010101010101010101010101010101',
    '84184348abababababababab1b0000018bcfe56800f5',
    '83184248abababababababab8381657177656e2a83183cf6f6f6',
    '841840647465616d83f61903e8f6f4',
    '821846647465616d',
  ]);
});

test('an entry of a kind to come is kept, passed on, and seen by its number', ({ expect }) => {
  const value: fc.Arbitrary<Value> = fc.oneof(fc.maxSafeInteger(), fc.string(), fc.boolean(), fc.uint8Array());
  const rest = fc.oneof(fc.array(value, { maxLength: 30 }), fc.array(fc.constant(null), { maxLength: 400 }));
  const unknown = fc.nat(65_535).filter((kind) => !known.includes(kind));
  fc.assert(
    fc.property(unknown, rest, (kind, values) => {
      const bytes = encodeValue([kind, ...values]).slice();
      const entry = parseEntry(bytes);
      expect(entry).toEqual({ kind: 'other', number: kind, bytes });
      expect(encodeEntry(entry)).toEqual(bytes);
      expect(isOpenEntry(bytes)).toBe(kind < 64);
    }),
    { numRuns: 400 },
  );
});

test('later versions may append fields to known kinds', ({ expect }) => {
  const bytes = encodeValue([2, '12D3KooWPeer', new Uint8Array(16), 'more']).slice();
  expect(parseEntry(bytes)).toEqual({ kind: 'ban', peer: '12D3KooWPeer', ban: '00'.repeat(16) });
});

test('what is no entry is refused with a code, whatever it is', ({ expect }) => {
  const bad: [Value, string][] = [
    [[], 'no kind'],
    [7, 'no array'],
    [[-1], 'kind below 0'],
    [[65_536], 'kind too high'],
    [[2, 'no peer!', new Uint8Array(16)], 'peer'],
    [[2, '12D3KooWPeer', new Uint8Array(15)], 'ban id'],
    [[1, new Uint8Array(3), '12D3KooWPeer', 0, 'owner', 1], 'invite'],
    [[1, new Uint8Array(), '12D3KooWPeer', 2, 'owner', 1], 'role'],
    [[1, new Uint8Array(), '12D3KooWPeer', 0, '-owner', 1], 'owner'],
    [[64, 'team', [0, null, null], true], 'rate of 0'],
    [[64, 'team', [null, null], true], 'limits cut short'],
    [[3, '12D3KooWPeer', Array.from({ length: 65 }, () => new Uint8Array(16))], 'too many bans'],
    [[67, new Uint8Array(8), 1.0, 1], 'cut is no boolean'],
  ];
  const codes = bad.map(([value, what]) => [what, outcomeOf(encodeValue(value).slice())]);
  expect(codes).toEqual(bad.map(([, what]) => [what, 'FRAME_MALFORMED']));
  expect(outcomeOf(new Uint8Array(limits.entryMaxBytes + 1))).toBe('FRAME_TOO_LARGE');
});

test('random and bent bytes never throw anything else, and what is read can be written', ({ expect }) => {
  const bent = fc
    .tuple(anyEntry, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }))
    .map(([entry, changes]) => {
      const bytes = encodeEntry(entry);
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), bent), (bytes) => {
      const outcome = outcomeOf(bytes);
      if (typeof outcome === 'string') expect(outcome).toBe('FRAME_MALFORMED');
      else expect(parseEntry(encodeEntry(outcome))).toEqual(outcome);
    }),
    { numRuns: 3_000 },
  );
});
