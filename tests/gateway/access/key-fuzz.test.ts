/** What attackers try with keys: nothing is accepted, nothing untyped is thrown, nothing is left behind. */

import { test } from 'vitest';
import { createKeyChecker, type KeyChecker } from '../../../gateway/access/keys.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { issuerOf } from '../../../protocol/mesh.ts';
import { ms } from '../../../protocol/units.ts';
import { newMesh, startMs, tokens } from '../../protocol/mesh-fixture.ts';
import { drawFrom, type Mutation, openForge } from '../../support/key-mutations.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const ours = await newMesh('ours');
const forge = await openForge(ours, await newMesh('theirs'), startMs);
const seed = Number(process.env['TEST_SEED'] ?? 1);

function openChecker(): KeyChecker {
  const issuer = issuerOf(ours.issuer);
  const ledger = { key: () => undefined, account: () => undefined, asOfMs: () => startMs };
  return createKeyChecker(
    { tokens, clock: new ManualClock(), ledger },
    {
      meshId: ours.mesh.meshId,
      issuers: new Map([[issuer.issuer, issuer]]),
      self: '12D3KooWAttacker' as PeerId,
      maxStaleMs: ms(600_000),
      staleGraceMs: ms(600_000),
    },
  );
}

const refusals: ReadonlySet<string> = new Set(['KEY_INVALID', 'KEY_EXPIRED']);

/** What is wrong with how a text was taken; undefined when it was refused as it should be. */
async function fault(checker: KeyChecker, { kind, text }: Mutation): Promise<string | undefined> {
  const shown = `${kind}: ${JSON.stringify(text.slice(0, 2_000))}`;
  try {
    await checker.check(text);
    return `ACCEPTED ${shown}`;
  } catch (error) {
    return isHelixFlowError(error) && refusals.has(error.code) ? undefined : `${String(error)} for ${shown}`;
  }
}

async function faultsOf(checker: KeyChecker, mutations: Iterable<Mutation>): Promise<string[]> {
  const found: string[] = [];
  for (const mutation of mutations) {
    const wrong = await fault(checker, mutation);
    if (wrong !== undefined) found.push(wrong);
  }
  return found;
}

test('the keys to begin with are good, or nothing below means anything', async ({ expect }) => {
  const checker = openChecker();
  for (const text of forge.good) expect(await checker.check(text)).toMatchObject({ account: 'team-a' });
});

test('no flip of a single bit is accepted', async ({ expect }) => {
  const checker = openChecker();
  expect(await faultsOf(checker, forge.flips())).toEqual([]);
});

test('none of 20,000 mutations is accepted, before or after the key itself was', { timeout: 120_000 }, async ({
  expect,
}) => {
  const checker = openChecker();
  const draw = drawFrom(seed);
  const some = function* (count: number): Generator<Mutation> {
    for (let index = 0; index < count; index += 1) yield forge.next(draw);
  };
  expect(await faultsOf(checker, some(10_000)), `seed ${seed}`).toEqual([]);
  for (const text of forge.good) await checker.check(text);
  expect(await faultsOf(checker, some(10_000)), `seed ${seed}`).toEqual([]);
  for (const text of forge.good) expect(checker.check(text)).toMatchObject({ account: 'team-a' });
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
});

test('every kind of mutation is drawn', ({ expect }) => {
  const draw = drawFrom(seed);
  const kinds = new Set(Array.from({ length: 2_000 }, () => forge.next(draw).kind));
  expect(kinds.size).toBe(20);
});
