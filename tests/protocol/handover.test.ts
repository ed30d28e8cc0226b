/** The lines that a handover goes by. */

import fc from 'fast-check';
import { test } from 'vitest';
import {
  encodeHandoverGrant,
  encodeHandoverRequest,
  parseHandoverGrant,
  parseHandoverRequest,
} from '../../protocol/handover.ts';
import { failure, newMesh, seeded } from './mesh-fixture.ts';

const { meshId } = (await newMesh('ours')).mesh;
const key = seeded('new issuer');
const request = encodeHandoverRequest(meshId, key);
const grant = {
  certificate: 'a.b.c',
  revocation: 'd.e.f',
  mesh: { name: 'Zürich', network: 'public', isOpen: true },
} as const;

test('a request and a grant come back from their lines', ({ expect }) => {
  expect(request).toMatch(/^hx-handover-request-[A-Za-z0-9_-]+$/);
  expect(parseHandoverRequest(`${request}\n`)).toEqual({ meshId, publicKey: key.publicKey });
  expect(encodeHandoverGrant(grant)).toMatch(/^hx-handover-grant-[A-Za-z0-9_-]+$/);
  expect(parseHandoverGrant(encodeHandoverGrant(grant))).toEqual(grant);
  const { revocation: _, ...kept } = grant;
  expect(parseHandoverGrant(encodeHandoverGrant(kept))).toEqual(kept);
});

test('a request does not survive the change of a letter', async ({ expect }) => {
  const letters = fc.constantFrom(...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_');
  const place = fc.integer({ min: 0, max: request.length - 1 });
  await fc.assert(
    fc.asyncProperty(place, letters, async (at, letter) => {
      fc.pre(request[at] !== letter);
      const changed = request.slice(0, at) + letter + request.slice(at + 1);
      expect(await failure(() => parseHandoverRequest(changed))).toMatchObject({ code: 'TOKEN_INVALID' });
    }),
  );
});

test('garbage is refused as such', async ({ expect }) => {
  const prefix = fc.constantFrom('', 'hx-handover-request-', 'hx-handover-grant-');
  await fc.assert(
    fc.asyncProperty(prefix, fc.oneof(fc.string(), fc.base64String()), async (start, rest) => {
      for (const parse of [parseHandoverRequest, parseHandoverGrant]) {
        expect(await failure(() => parse(start + rest))).toMatchObject({ code: 'TOKEN_INVALID' });
      }
    }),
  );
});
