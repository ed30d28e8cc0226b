/** What may stand in the audit log: nothing that is a secret, an address or a sentence gets in, whoever passes it on. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { type AuditRecord, auditActions } from '../../ledger/audit.ts';
import { lineMaxChars, lineOf, parseLine } from '../../ledger/audit-chain.ts';
import { cleanRecord, removed } from '../../ledger/audit-record.ts';
import { unixMs } from '../../protocol/units.ts';
import { anyDeed, deed, keyId, peer, refusal } from './audit-stage.ts';

const hex = (characters: number): string => 'ab'.repeat(characters / 2);

describe('what is fit', () => {
  test.for([
    ['local', 'none'],
    [`key:${keyId}`, 'POST /admin/v1/keys/:key/rotate'],
    [`key:${keyId}`, 'GET /v1/models/*'],
    [`key:${keyId}`, '/v1/chat/completions'],
    [`peer:${peer}`, `invite:${hex(32)}`],
    ['local', `issuer:${hex(32)}`],
    ['none', `author:${hex(64)}`],
    ['local', `mesh:${hex(64)}`],
    ['local', 'account:acct-0123456789abcdef'],
    ['many', 'many'],
  ] as const)('%s and %s stay as they are', ([actor, object], { expect }) => {
    const record = deed({ actor, object });
    expect(cleanRecord(record)).toEqual({ record, faults: [] });
  });

  test('every record that is made of references is', ({ expect }) => {
    fc.assert(fc.property(anyDeed, (record) => void expect(cleanRecord(record)).toEqual({ record, faults: [] })));
  });
});

const secrets = [
  'sk-hx-eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln',
  'SK-HX-abc',
  'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl',
  'hx-invite-eyJhbGciOiJFZERTQSJ9',
  '192.0.2.7',
  '192.0.2.7:7420',
  '2001:db8::1',
  '::1',
  '/ip4/192.0.2.7/tcp/4001',
  'Tell me a story',
  'gateway.example.com',
  'Alice',
  'x'.repeat(200),
  '\u001b[2J',
  '{"a":1}\n{"b":2}',
  '',
] as const;

describe('what is not fit is replaced', () => {
  test.for(secrets)('as an actor, bare or behind the name of a kind: %j', (secret, { expect }) => {
    for (const actor of [secret, `key:${secret}`, `peer:${secret}`, `invite:${secret}`, `mesh:${secret}`]) {
      expect(cleanRecord(deed({ actor })).record.actor).toBe(removed);
    }
  });

  test.for(secrets)('as an object, bare, as a reference or as a part of a path: %j', (secret, { expect }) => {
    for (const object of [secret, `key:${secret}`, `GET /v1/${secret}?`]) {
      expect(cleanRecord(deed({ object })).record.object).toBe(removed);
    }
  });

  test.for(secrets.filter((secret) => secret !== '' && secret !== 'Alice'))('as a reason: %j', (reason, { expect }) => {
    expect(cleanRecord(refusal({ reason })).record.reason).toBe(removed);
  });

  test('an account whose id looks like a token', ({ expect }) => {
    const record = deed({ object: 'account:eyJhbGciOiJFZERTQSJ9' });
    expect(cleanRecord(record)).toEqual({ record: { ...record, object: removed }, faults: ['object'] });
  });

  test('what a caller without types passes on', ({ expect }) => {
    const wrong = { action: 'rm', actor: 7, object: null, outcome: 'x', reason: {}, count: Number.NaN };
    const { record, faults } = cleanRecord(wrong as unknown as AuditRecord);
    expect(record).toEqual({
      action: 'admin.request',
      actor: removed,
      object: removed,
      outcome: 'failed',
      reason: removed,
    });
    expect(faults).toEqual(['action', 'actor', 'object', 'outcome', 'reason', 'count']);
  });
});

test('whatever is passed on, the line is short, plain and can be read again', ({ expect }) => {
  const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 300 }), fc.constantFrom(...secrets));
  const mixed = fc.record({
    action: fc.oneof(fc.constantFrom(...auditActions), text),
    actor: fc.oneof(
      text,
      text.map((id) => `account:${id}`),
    ),
    object: fc.oneof(
      text,
      text.map((path) => `GET /${path}`),
    ),
    outcome: fc.oneof(fc.constantFrom('done', 'refused', 'failed'), text),
    reason: text,
    count: fc.option(fc.oneof(fc.integer(), fc.double()), { nil: undefined }),
  });
  fc.assert(
    fc.property(mixed, (given) => {
      const { record } = cleanRecord(given as AuditRecord);
      const line = lineOf(record, 999_999_999_999, unixMs(9_999_999_999_999), '0'.repeat(64));
      expect(line).toMatch(/^[\x20-\x7e]+$/);
      expect(line.length).toBeLessThanOrEqual(lineMaxChars);
      expect(line).not.toMatch(/sk-hx-|hx-invite-|"ey|\d{1,3}(\.\d{1,3}){3}/i);
      expect(parseLine(line)).toMatchObject({ ...record });
    }),
    { numRuns: 1_000 },
  );
});
