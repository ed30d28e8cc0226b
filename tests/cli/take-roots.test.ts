/** What the root has said, in the audit log: whoever brought it, once, and nothing that is no news. */

import { test } from 'vitest';
import { createRootTaker } from '../../cli/take-roots.ts';
import type { AuditRecord } from '../../ledger/audit.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import { signLift, signRevocation } from '../../protocol/root-tokens.ts';
import { failure, newMesh, startMs, tokens } from '../protocol/mesh-fixture.ts';

const mesh = await newMesh('ours');
const { meshId, rootPublicKey } = mesh.mesh;
const issuer = '12'.repeat(16) as never;
const author = 'ab'.repeat(32) as never;
const signing = { tokens, nowMs: startMs };
const revocation = {
  kind: 'revocation',
  token: await signRevocation({ meshId, issuer }, mesh.root.key, signing),
} as const;
const lift = {
  kind: 'lift',
  token: await signLift({ meshId, author, epoch: 'cd'.repeat(16) as never }, mesh.root.key, signing),
} as const;

const noting = () => {
  const roots = createRoots({ tokens }, { meshId, rootPublicKey });
  const records: AuditRecord[] = [];
  const shown = () => records.map(({ action, actor, object }) => [action, actor, object]);
  return { roots, audit: { note: (record: AuditRecord) => void records.push(record) }, shown };
};

test('tells whether a command or a peer brought it, and says it once', async ({ expect }) => {
  const { roots, audit, shown } = noting();
  await roots.take({ kind: 'issuer', token: mesh.issuer.certificate });
  using taker = createRootTaker(roots, audit);
  expect(await taker.take([revocation])).toBe(1);
  await roots.take(revocation);
  await roots.take(lift);
  expect(await taker.take([lift])).toBe(0);
  expect(shown()).toEqual([
    ['issuer.revoke', 'local', `issuer:${issuer}`],
    ['feed.unfreeze', 'none', `author:${author}`],
  ]);
});

test('what is not the root’s is not told, and what a peer brings later is not taken for a command’s', async ({
  expect,
}) => {
  const { roots, audit, shown } = noting();
  using taker = createRootTaker(roots, audit);
  const stolen = { kind: 'lift', token: revocation.token } as const;
  expect(await failure(() => taker.take([stolen]))).toMatchObject({ code: 'TOKEN_INVALID' });
  await roots.take(revocation);
  expect(shown()).toEqual([['issuer.revoke', 'none', `issuer:${issuer}`]]);
});
