/** Adverts: what one says comes back, and what anybody else made does not pass. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeValue } from '../../../protocol/codec.ts';
import { keyFromSeed, sha256, signBytes } from '../../../protocol/crypto.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { MeshId, ModelDigest, PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { type Advert, encodeAdvert, judgeAdvert, parseAdvert } from '../../../protocol/messages/advert.ts';
import { peerIdOf } from '../../../protocol/peer/identity.ts';
import { unixMs } from '../../../protocol/units.ts';

const key = keyFromSeed(sha256('a peer'));
const other = keyFromSeed(sha256('another peer'));
const meshId = '5e'.repeat(32) as MeshId;
const digest = 'ab'.repeat(32) as ModelDigest;
const nowMs = unixMs(1_800_000_000_000);
const checking = { meshId, nowMs };

const advert: Advert = {
  meshId,
  peer: peerIdOf(key.publicKey),
  role: 'gateway',
  sequence: 7,
  issuedMs: nowMs,
  expiresMs: unixMs(nowMs + limits.advertTtlMs),
  addresses: ['/ip4/10.0.0.1/tcp/7421', '/ip6/::1/tcp/7421'],
  models: [
    { name: 'helix-tiny', digest },
    { name: 'größer', digest },
  ],
};
const of = (changes: Partial<Advert>): Uint8Array => encodeAdvert({ ...advert, ...changes }, key);

/** The reason of the one error that may come; anything else, acceptance too, comes out as a sentence. */
function refusal(work: () => unknown): string {
  try {
    work();
    return 'NOT REFUSED';
  } catch (error) {
    return isHelixFlowError(error, 'ADVERT_INVALID') ? error.details.reason : `NOT TYPED: ${error}`;
  }
}

const isRefused = (bytes: Uint8Array): boolean => !refusal(() => parseAdvert(bytes, checking)).startsWith('NOT ');

describe('an advert', () => {
  test('comes back as it was', ({ expect }) => {
    expect(parseAdvert(of({}), checking)).toEqual(advert);
    expect(parseAdvert(of({ role: 'node', addresses: [], models: [] }), checking)).toMatchObject({
      role: 'node',
      models: [],
    });
  });

  test('has one encoding, within its limit at the largest sensible size', ({ expect }) => {
    const models = Array.from({ length: limits.offerModelsMax }, (_, at) => ({
      name: `model-${at}`.padEnd(64, 'x'),
      digest,
    }));
    expect(of({})).toEqual(of({}));
    expect(of({ models }).length).toBeLessThanOrEqual(limits.advertMaxBytes);
  });

  test('is not made larger than its limit, nor with a key that is not its peer’s', ({ expect }) => {
    const models = Array.from({ length: limits.offerModelsMax }, () => ({
      name: 'x'.repeat(limits.modelNameMaxChars),
      digest,
    }));
    expect(refusal(() => of({ models }))).toContain('larger');
    expect(refusal(() => encodeAdvert(advert, other))).toBe('not signed by its peer');
  });

  test('is refused out of its time or mesh', ({ expect }) => {
    const { advertTtlMs, clockSkewMaxMs } = limits;
    const at = (issuedMs: number, expiresMs: number): string =>
      refusal(() => parseAdvert(of({ issuedMs: unixMs(issuedMs), expiresMs: unixMs(expiresMs) }), checking));
    expect(at(nowMs - advertTtlMs, nowMs)).toBe('expired');
    expect(at(nowMs - advertTtlMs + 1, nowMs + 1)).toBe('NOT REFUSED');
    expect(at(nowMs + clockSkewMaxMs, nowMs + clockSkewMaxMs + 1)).toBe('NOT REFUSED');
    expect(at(nowMs + clockSkewMaxMs + 1, nowMs + clockSkewMaxMs + 2)).toBe('from the future');
    expect(at(nowMs, nowMs + advertTtlMs + 1)).toBe('valid for too long');
    expect(at(nowMs + 5, nowMs + 4)).toBe('valid for too long');
    expect(refusal(() => parseAdvert(of({ meshId: 'cd'.repeat(32) as MeshId }), checking))).toBe('of another mesh');
  });

  test('is refused with more than a peer may say', ({ expect }) => {
    const addresses = Array.from({ length: limits.peerAddressesMax + 1 }, (_, at) => `/ip4/10.0.0.${at}/tcp/1`);
    const models = Array.from({ length: limits.offerModelsMax + 1 }, () => ({ name: 'x', digest }));
    expect(isRefused(of({ addresses }))).toBe(true);
    expect(isRefused(of({ addresses: ['x'.repeat(limits.addressMaxChars + 1)] }))).toBe(true);
    expect(isRefused(of({ models }))).toBe(true);
    expect(isRefused(of({ models: [{ name: 'x'.repeat(limits.modelNameMaxChars + 1), digest }] }))).toBe(true);
  });

  test('is refused with any one bit changed', ({ expect }) => {
    const bytes = of({});
    const bit = fc.nat({ max: bytes.length * 8 - 1 });
    fc.assert(
      fc.property(bit, (at) => {
        const changed = bytes.slice();
        changed[at >> 3] = (changed[at >> 3] ?? 0) ^ (1 << (at & 7));
        expect(isRefused(changed)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test('is refused when it is garbage, cut or followed by something', ({ expect }) => {
    const bytes = of({});
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), isRefused));
    fc.assert(fc.property(fc.nat({ max: bytes.length - 1 }), (end) => isRefused(bytes.slice(0, end))));
    expect(isRefused(Uint8Array.of(...bytes, 0))).toBe(true);
    expect(isRefused(new Uint8Array(limits.advertMaxBytes + 1))).toBe(true);
  });

  test('of another key does not pass, also when that key signed another kind of thing', ({ expect }) => {
    const body = encodeValue([new Uint8Array(32), key.publicKey, 0, 1, 2, 3, [], []]);
    expect(isRefused(encodeValue([body, signBytes('helixflow/advert/1', body, other)]))).toBe(true);
    expect(isRefused(encodeValue([body, signBytes('helixflow/other/1', body, key)]))).toBe(true);
  });
});

describe('of two adverts of a peer', () => {
  const known = of({});

  test('the higher number is the newer, whatever the times say', ({ expect }) => {
    expect(judgeAdvert(undefined, known)).toBe('newer');
    expect(judgeAdvert(known, of({ sequence: 8, issuedMs: unixMs(nowMs - 5) }))).toBe('newer');
    expect(judgeAdvert(known, of({ sequence: 6, issuedMs: unixMs(nowMs + 5) }))).toBe('older');
  });

  test('the same number is the same bytes or a fork', ({ expect }) => {
    expect(judgeAdvert(known, known.slice())).toBe('same');
    expect(judgeAdvert(known, of({ role: 'node' }))).toBe('fork');
  });

  test('peers that see the same adverts in any order keep the same one', ({ expect }) => {
    const numbers = fc.uniqueArray(fc.nat({ max: 1_000 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(numbers, (sequences) => {
        let kept: Uint8Array | undefined;
        for (const sequence of sequences) {
          const incoming = of({ sequence });
          if (judgeAdvert(kept, incoming) === 'newer') kept = incoming;
        }
        expect(kept).toEqual(of({ sequence: Math.max(...sequences) }));
      }),
      { numRuns: 20 },
    );
  });

  test('peer ids of adverts are those of their keys', ({ expect }) => {
    expect(parseAdvert(known, checking).peer).toBe(advert.peer satisfies PeerId);
  });
});
