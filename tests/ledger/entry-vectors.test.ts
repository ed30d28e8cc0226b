/** The committed entries about money and usage: their bytes, their signatures, and what is no entry. */

import { readFileSync } from 'node:fs';
import { describe, test } from 'vitest';
import { type Entry, encodeEntry, parseEntry } from '../../ledger/entry.ts';
import { moneyKinds } from '../../ledger/money.ts';
import { follows, isClaimed, isCountersigned, statementHash, usageKinds } from '../../ledger/statement.ts';
import { fromHex, toHex } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { MeshId } from '../../protocol/ids.ts';
import { peerIdFromSeed } from '../../protocol/peer/identity.ts';

interface Vectors {
  readonly signedBy: { readonly meshId: MeshId; readonly gatewaySeed: string; readonly nodeSeed: string };
  readonly valid: readonly { readonly name: string; readonly hex: string; readonly entry: unknown }[];
  readonly invalid: readonly { readonly name: string; readonly hex: string }[];
}

const { entries } = JSON.parse(readFileSync('protocol/vectors/ledger.json', 'utf8')) as { readonly entries: Vectors };
/** As JSON shows it: bytes in hex. */
const shown = (entry: Entry): unknown =>
  JSON.parse(JSON.stringify(entry, (_, value: unknown) => (value instanceof Uint8Array ? toHex(value) : value)));
const parsed = entries.valid.map(({ hex }) => parseEntry(fromHex(hex)));

describe('vectors', () => {
  test('cover every kind', ({ expect }) => {
    const kinds = [...Object.keys(moneyKinds), ...Object.keys(usageKinds), 'account', 'terms'];
    expect(new Set(parsed.map(({ kind }) => kind))).toEqual(new Set(kinds));
    expect(entries.invalid.length).toBeGreaterThan(25);
  });

  test.for(entries.valid)('valid: $name', ({ hex, entry }, { expect }) => {
    const read = parseEntry(fromHex(hex));
    expect([shown(read), toHex(encodeEntry(read))]).toEqual([entry, hex]);
  });

  test.for(entries.invalid)('invalid: $name', ({ hex }, { expect }) => {
    expect(() => parseEntry(fromHex(hex))).toThrow(
      expect.toSatisfy((error) => isHelixFlowError(error, 'FRAME_MALFORMED')),
    );
  });
});

describe('signed vectors', () => {
  const { meshId, gatewaySeed, nodeSeed } = entries.signedBy;
  const gateway = peerIdFromSeed(fromHex(gatewaySeed));

  test('are signed by the node, for the statements of the gateway in this mesh', ({ expect }) => {
    const node = peerIdFromSeed(fromHex(nodeSeed));
    const signed = parsed.flatMap((entry) => {
      if (entry.kind === 'countersign') return [[entry.node, isCountersigned(entry, { meshId, gateway })]];
      return entry.kind === 'claim' ? [[entry.node, isClaimed(entry, meshId)]] : [];
    });
    expect(signed).toEqual([
      [node, true],
      [node, true],
      [node, true],
    ]);
  });

  test('name the statements, which follow each other', ({ expect }) => {
    const stated = entries.valid.flatMap(({ hex }, at) => {
      const entry = parsed[at];
      return entry?.kind === 'statement' ? [{ entry, hash: statementHash(fromHex(hex)) }] : [];
    });
    const [first, second] = stated;
    if (first === undefined || second === undefined) throw new Error('no statements');
    const { number, totals } = first.entry;
    expect([follows(first.entry, undefined), follows(second.entry, { number, totals, hash: first.hash })]).toEqual([
      true,
      true,
    ]);
    const named = parsed.flatMap((entry) => (entry.kind === 'countersign' ? [toHex(entry.statement)] : []));
    expect(named).toEqual(stated.map(({ hash }) => toHex(hash)));
  });
});
