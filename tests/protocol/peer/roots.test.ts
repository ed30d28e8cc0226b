/** What is known of the root's word: from its tokens alone, in any order, and never too much of it. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type IssuerCertificate, issuerIdOf, type Succession, signCertificate } from '../../../protocol/grants.ts';
import type { AuthorId, EpochId, IssuerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { issuerOf } from '../../../protocol/mesh.ts';
import { createRoots, takeAll } from '../../../protocol/peer/create-roots.ts';
import type { Roots, RootToken } from '../../../protocol/peer/roots.ts';
import { checkLift, checkRevocation, signLift, signRevocation } from '../../../protocol/root-tokens.ts';
import { unixMs } from '../../../protocol/units.ts';
import { createSimTokens } from '../../../sim/tokens.ts';
import { failure, newMesh, seeded, startMs, tokens } from '../mesh-fixture.ts';

const mesh = await newMesh('ours');
const other = await newMesh('theirs');
const { meshId, rootPublicKey } = mesh.mesh;
const first = issuerOf(mesh.issuer);
const root = mesh.root.key;
const signing = { tokens, nowMs: startMs };
const author = 'cd'.repeat(32) as AuthorId;
const epoch = 'ef'.repeat(16) as EpochId;

const newRoots = (): Roots => createRoots({ tokens }, { meshId, rootPublicKey });

/** An issuer of this name, with what it succeeds. */
function certificate(name: string, succeeds?: Succession): IssuerCertificate {
  const { publicKey } = seeded(name);
  return { meshId, issuer: issuerIdOf(publicKey), publicKey, ...(succeeds === undefined ? {} : { succeeds }) };
}
const idOf = (name: string): IssuerId => certificate(name).issuer;
const named = async (name: string, after?: string, by = signing): Promise<RootToken> => {
  const grant = certificate(name, after === undefined ? undefined : { issuer: idOf(after) });
  return { kind: 'issuer', token: await signCertificate(grant, root, by) };
};
const revoked = async (name: string, by = signing): Promise<RootToken> => ({
  kind: 'revocation',
  token: await signRevocation({ meshId, issuer: idOf(name) }, root, by),
});
const lifted = async (of = epoch): Promise<RootToken> => ({
  kind: 'lift',
  token: await signLift({ meshId, author, epoch: of }, root, signing),
});

test('what the root signs comes back from its tokens', async ({ expect }) => {
  const checking = { tokens, meshId, nowMs: startMs };
  const revocation = await revoked('A');
  expect(await checkRevocation(revocation.token, rootPublicKey, checking)).toEqual({ meshId, issuer: idOf('A') });
  expect(await checkLift((await lifted()).token, rootPublicKey, checking)).toEqual({ meshId, author, epoch });
});

test('an issuer counts from its certificate to its revocation, which may come first', async ({ expect }) => {
  const roots = newRoots();
  expect(await roots.take({ kind: 'issuer', token: mesh.issuer.certificate })).toBe(true);
  expect(await roots.take({ kind: 'issuer', token: mesh.issuer.certificate })).toBe(false);
  expect([...roots.issuers]).toEqual([[first.issuer, first]]);
  expect(await roots.take(await revoked('B'))).toBe(true);
  expect(await roots.take(await named('B'))).toBe(true);
  expect([...roots.issuers.keys()]).toEqual([first.issuer]);
  expect([roots.isRevoked(idOf('B')), roots.isRevoked(first.issuer)]).toEqual([true, false]);
  expect(roots.certificateOf(idOf('B'))).toEqual(certificate('B'));
});

test('each new token is told once, until nobody listens', async ({ expect }) => {
  const roots = newRoots();
  const told: RootToken[] = [];
  const cancel = roots.onChange((said) => told.push(said));
  const said = await lifted();
  await Promise.all([roots.take(said), roots.take(said)]);
  expect(told).toEqual([said]);
  expect(roots.lifts()).toEqual([{ meshId, author, epoch }]);
  cancel();
  await roots.take(await revoked('A'));
  expect(told).toEqual([said]);
});

test('nobody but the root of this mesh is heard', async ({ expect }) => {
  const roots = newRoots();
  const theirs = { ...signing };
  const foreign = issuerOf(other.issuer).issuer;
  const attempts: RootToken[] = [
    { kind: 'issuer', token: other.issuer.certificate },
    { kind: 'lift', token: mesh.issuer.certificate },
    { kind: 'revocation', token: (await lifted()).token },
    { kind: 'revocation', token: '' },
    {
      kind: 'revocation',
      token: await signRevocation({ meshId: other.mesh.meshId, issuer: foreign }, other.root.key, theirs),
    },
    {
      kind: 'revocation',
      token: await tokens.sign(
        'revocation',
        { iss: meshId, aud: meshId, sub: first.issuer, iat: 1_700_000_000 },
        mesh.issuer.key,
      ),
    },
    {
      kind: 'revocation',
      token: await tokens.sign('revocation', { iss: meshId, aud: meshId, sub: 'nobody', iat: 1_700_000_000 }, root),
    },
    {
      kind: 'lift',
      token: await tokens.sign('lift', { iss: meshId, aud: meshId, sub: author, iat: 1_700_000_000 }, root),
    },
  ];
  for (const said of attempts) expect(await failure(() => roots.take(said))).toMatchObject({ code: 'TOKEN_INVALID' });
  expect(roots.tokens()).toEqual([]);
});

test('a revocation counts though its clock is a year ahead of ours', async ({ expect }) => {
  const roots = newRoots();
  await roots.take(await revoked('A', { tokens, nowMs: unixMs(startMs + 366 * 86_400_000) }));
  expect(roots.isRevoked(idOf('A'))).toBe(true);
});

test('successors come oldest first, through those that were revoked, and a circle ends', async ({ expect }) => {
  const roots = newRoots();
  const said = [await named('C', 'B'), await named('D', 'C'), await named('A', 'D'), await named('B', 'A')];
  for (const token of said) await roots.take(token);
  const names = (of: string): IssuerId[] => roots.successorsOf(idOf(of)).map(({ issuer }) => issuer);
  expect(names('A')).toEqual([idOf('B'), idOf('C'), idOf('D')]);
  await roots.take(await revoked('B'));
  expect(names('A')).toEqual([idOf('C'), idOf('D')]);
  expect(names('nobody')).toEqual([]);
});

test('a certificate that tells of a succession stands before one that does not', async ({ expect }) => {
  const roots = newRoots();
  for (const token of [await named('B'), await named('B', 'A')]) await roots.take(token);
  expect(roots.certificateOf(idOf('B'))).toEqual(certificate('B', { issuer: idOf('A') }));
  expect(roots.issuers.get(idOf('B'))).toEqual(certificate('B', { issuer: idOf('A') }));
});

test('every order of arrival comes to the same', async ({ expect }) => {
  const at = (seconds: number) => ({ tokens, nowMs: unixMs(startMs + 1_000 * seconds) });
  const said = [
    await named('A'),
    await named('B', 'A'),
    await named('B', undefined, at(1)),
    await named('B', 'A', at(2)),
    await named('C', 'B'),
    await named('D', 'A'),
    await revoked('A'),
    await revoked('A', at(3)),
    await lifted(),
  ];
  const stateAfter = async (order: readonly RootToken[]): Promise<unknown> => {
    const roots = newRoots();
    for (const token of order) await roots.take(token);
    return {
      tokens: roots
        .tokens()
        .map(({ token }) => token)
        .sort(),
      issuers: [...roots.issuers].sort(),
      successors: roots.successorsOf(idOf('A')),
      certificates: ['A', 'B', 'C', 'D'].map((name) => roots.certificateOf(idOf(name))),
    };
  };
  const expected = await stateAfter(said);
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(said, { minLength: said.length }), async (order) => {
      expect(await stateAfter([...order, ...order])).toEqual(expected);
    }),
    { numRuns: 30 },
  );
});

test('too much is cut the same way in any order, and a revocation is never cut', async ({ expect }) => {
  const fast = { tokens: createSimTokens({ mode: 'fast' }), nowMs: startMs };
  const said: RootToken[] = [];
  for (let index = 0; index < limits.rootTokensMax; index += 1) {
    const epochId = index.toString(16).padStart(32, '0') as EpochId;
    said.push({ kind: 'lift', token: await signLift({ meshId, author, epoch: epochId }, root, fast) });
    if (index < 10) said.push({ kind: 'issuer', token: await signCertificate(certificate(`${index}`), root, fast) });
    const issuer = idOf(`${index % 20}`);
    if (index < 20) said.push({ kind: 'revocation', token: await signRevocation({ meshId, issuer }, root, fast) });
  }
  const keptOf = async (order: readonly RootToken[]): Promise<Roots> => {
    const roots = createRoots(fast, { meshId, rootPublicKey });
    for (const token of order) await roots.take(token);
    return roots;
  };
  const kept = await keptOf(said);
  const texts = (roots: Roots): string[] =>
    roots
      .tokens()
      .map(({ token }) => token)
      .sort();
  expect(kept.tokens()).toHaveLength(limits.rootTokensMax);
  expect(
    kept
      .tokens()
      .slice(0, 30)
      .map(({ kind }) => kind),
  ).toEqual([...Array.from({ length: 20 }, () => 'revocation'), ...Array.from({ length: 10 }, () => 'issuer')]);
  expect(texts(await keptOf([...said].reverse()))).toEqual(texts(kept));
  const cut = said.find(({ token }) => !texts(kept).includes(token)) as RootToken;
  expect(await kept.take(cut)).toBe(false);
  for (let index = 0; index < limits.rootTokensMax; index += 1) {
    const issuer = index.toString(16).padStart(32, '0') as IssuerId;
    await kept.take({ kind: 'revocation', token: await signRevocation({ meshId, issuer }, root, fast) });
  }
  expect(kept.tokens().map(({ kind }) => kind)).toEqual(Array.from({ length: 276 }, () => 'revocation'));
});

test('of many tokens those before the first bad one are taken', async ({ expect }) => {
  const roots = newRoots();
  const said = [await revoked('A'), { kind: 'lift', token: 'bad' } as RootToken, await revoked('B')];
  expect(await takeAll(roots, said)).toBe(false);
  expect([roots.isRevoked(idOf('A')), roots.isRevoked(idOf('B'))]).toEqual([true, false]);
  expect(await takeAll(roots, [await revoked('B')])).toBe(true);
});
