/** What access costs: a key that is known, limits taken and given back, and texts that are no keys. */

import { keyLedgerOf } from '../../gateway/access/key-ledger.ts';
import { createKeyChecker, type KeyChecker } from '../../gateway/access/keys.ts';
import { createLimits } from '../../gateway/access/limits.ts';
import { Meter } from '../../gateway/access/meter.ts';
import type { Entry } from '../../ledger/entry.ts';
import { authorOf, createIssuers } from '../../ledger/issuers.ts';
import { createStanding } from '../../ledger/standing.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { countDelta, deliveredTokens, nothingCounted } from '../../protocol/counting.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { type KeyGrant, signKey } from '../../protocol/grants.ts';
import type { AccountId, EpochId, IssuerId, KeyId, PeerId } from '../../protocol/ids.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { seconds } from '../../protocol/units.ts';
import { newMesh, tokens } from '../protocol/mesh-fixture.ts';
import { drawFrom, openForge } from '../support/key-mutations.ts';

const clock = systemClock();
const self = '12D3KooWAttacker' as PeerId;
const mesh = await newMesh('bench');
const issuer = issuerOf(mesh.issuer);
const author = authorOf(issuer);
const account = 'team' as AccountId;
const limits = { rpm: 2_000_000_000, tpm: 2_000_000_000, concurrency: 1_000_000 };

/** A ledger with `keys` keys, each with terms of its own, and their account. */
function openLedger(keys: number) {
  const issuers = createIssuers({
    certificateOf: (id: IssuerId) => (id === issuer.issuer ? issuer : undefined),
    isRevoked: () => false,
    successorsOf: () => [],
  } as never);
  const standing = createStanding((by) => issuers.counts(by));
  let index = 0;
  const add = (entry: Entry): void => {
    const epoch = '00'.repeat(16) as EpochId;
    standing.apply({
      entry,
      place: { author, epoch, generation: 0, number: 0, index, timeMs: 0, isAfterFork: false },
    });
    index += 1;
  };
  add({ kind: 'account', account, limits, strict: false });
  for (let key = 0; key < keys; key += 1) add({ kind: 'terms', key: keyNamed(key), terms: { models: [], limits } });
  return keyLedgerOf({
    standing,
    authorsOf: (of) => issuers.line(of).map(authorOf),
    freshness: () => ({ asOfMs: clock.wallMs(), hasFutureHeartbeat: false }),
  });
}

const keyNamed = (key: number): KeyId => key.toString(16).padStart(16, '0') as KeyId;

function openChecker(keys: number): KeyChecker {
  return createKeyChecker(
    { tokens, clock, ledger: openLedger(keys) },
    {
      meshId: mesh.mesh.meshId,
      issuers: new Map([[issuer.issuer, issuer]]),
      self,
      maxStaleMs: seconds(600),
      staleGraceMs: seconds(600),
    },
  );
}

const grant: KeyGrant = {
  keyId: keyNamed(0),
  issuer: issuer.issuer,
  account,
  role: 'user',
  models: [],
  limits: {},
  gateways: [],
  strict: false,
};

/** Of several rounds the fastest mean, in microseconds: what the code costs without what else the machine does. */
function fastestUs(rounds: number, count: number, run: (index: number) => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round += 1) {
    const startMs = performance.now();
    for (let index = 0; index < count; index += 1) run(index);
    best = Math.min(best, ((performance.now() - startMs) * 1_000) / count);
  }
  return best;
}

export interface AccessReport {
  /** A key that was checked before, with its terms, its account and the freshness of its issuer. */
  readonly keyUs: number;
  /** Limits of a key and its account: taken, a hundred pieces counted, settled. */
  readonly limitsUs: number;
  /** Of those, what the pieces take. */
  readonly hundredPiecesUs: number;
}

/** Costs on the path of every request. */
export async function measureAccess(): Promise<AccessReport> {
  const keys = 1_000;
  const signing = { tokens, nowMs: clock.wallMs() };
  const { meshId } = mesh.mesh;
  const texts = await Promise.all(
    Array.from({ length: keys }, (_, key) =>
      signKey({ ...grant, keyId: keyNamed(key), meshId }, mesh.issuer.key, signing),
    ),
  );
  const checker = openChecker(keys);
  for (const text of texts) await checker.check(text);
  const keyUs = fastestUs(20, 100_000, (index) => void checker.check(texts[index % keys] ?? ''));

  const held = createLimits(clock);
  const access = await checker.check(texts[0] ?? '');
  const request = { promptBound: 400, completionTokens: 1_000, isExplicit: true };
  const take = (pieces: number): void => {
    const hold = held.take(access, () => request);
    if (hold === undefined || hold instanceof HelixFlowError) throw hold ?? new Error('nothing is limited');
    const meter = new Meter(hold);
    meter.opened();
    let counted = nothingCounted;
    for (let piece = 0; piece < pieces; piece += 1) {
      counted = countDelta(counted, ' word', 1);
      meter.delivered(deliveredTokens(counted));
    }
    meter.done(100, pieces);
  };
  const limitsUs = fastestUs(20, 20_000, () => take(0));
  const withPieces = fastestUs(20, 5_000, () => take(100));
  return { keyUs, limitsUs, hundredPiecesUs: withPieces - limitsUs };
}

export interface FuzzReport {
  readonly count: number;
  readonly accepted: number;
  /** Thrown, and not one of the errors of keys. */
  readonly untyped: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

/** Tries `count` texts that are no keys, one after the other. */
export async function fuzzTokens(count: number, seed: number): Promise<FuzzReport> {
  const forge = await openForge(mesh, await newMesh('theirs'), clock.wallMs());
  const checker = openChecker(1);
  const draw = drawFrom(seed);
  const tookUs = new Float64Array(count);
  let accepted = 0;
  let untyped = 0;
  for (let index = 0; index < count; index += 1) {
    const { text } = forge.next(draw);
    const startMs = performance.now();
    try {
      await checker.check(text);
      accepted += 1;
    } catch (error) {
      if (!isHelixFlowError(error) || !error.code.startsWith('KEY_')) untyped += 1;
    }
    tookUs[index] = (performance.now() - startMs) * 1_000;
  }
  tookUs.sort();
  const at = (share: number): number => tookUs[Math.min(count - 1, Math.floor(share * count))] ?? Number.NaN;
  return { count, accepted, untyped, p50Us: at(0.5), p99Us: at(0.99), p999Us: at(0.999), maxUs: at(1) };
}
