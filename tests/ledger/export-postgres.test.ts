/** What a URL of PostgreSQL says: where to, with which TLS, and nothing of it that is secret in an error. */

import { describe, test } from 'vitest';
import { exportError, isDatabaseError, parsePostgresUrl } from '../../ledger/adapters/export-postgres-connect.ts';
import { migrations, upsert } from '../../ledger/adapters/export-postgres-schema.ts';
import { sha256Hex } from '../../protocol/crypto.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { failure } from '../protocol/mesh-fixture.ts';

const tlsOf = (url: string) => parsePostgresUrl(url).config.ssl;

describe('TLS', () => {
  test.for([
    'postgres://u:p@127.0.0.1/db',
    'postgres://u@localhost:5433/db',
    'postgres://u@[::1]:5433/db',
    'postgres://u@/db?host=/run/postgresql',
    'postgres://u@%2Frun%2Fpostgresql/db',
    'postgres://u:p@db.example/db?sslmode=disable',
  ])('is not asked of %s', (url, { expect }) => {
    expect(tlsOf(url)).toBe(false);
  });

  test('to another machine it proves who it is, unless somebody says otherwise', ({ expect }) => {
    expect(tlsOf('postgres://u:p@db.example/db')).toEqual({ rejectUnauthorized: true });
    expect(tlsOf('postgresql://u:p@192.0.2.1/db?sslmode=verify-full')).toEqual({ rejectUnauthorized: true });
    expect(tlsOf('postgres://u:p@db.example/db?sslmode=require')).toEqual({ rejectUnauthorized: false });
    const chain = tlsOf('postgres://u:p@db.example/db?sslmode=verify-ca');
    expect(chain).toMatchObject({ rejectUnauthorized: true, checkServerIdentity: expect.any(Function) });
  });

  test('that is half a promise is refused, and so is a file that is not there', async ({ expect }) => {
    const refused = { code: 'EXPORT_FAILED', target: 'postgres://db.example/db' };
    for (const query of ['sslmode=prefer', 'sslmode=allow', 'sslmode=verify-full&sslrootcert=/nowhere/ca.pem']) {
      expect(await failure(() => tlsOf(`postgres://u:secret@db.example/db?${query}`))).toMatchObject(refused);
    }
  });

  test('is said to the driver by nothing but its options', ({ expect }) => {
    const { config } = parsePostgresUrl('postgres://u:p@db.example/db?sslmode=require&application_name=x');
    expect(config.connectionString).toBe('postgres://u:p@db.example/db?application_name=x');
  });
});

describe('an error', () => {
  test.for([
    ['postgres://user:s3cret-s3cret@db.example:5432/db', 'postgres://db.example:5432/db'],
    ['postgres://user:p@ss@db.example/db', 'postgres://db.example/db'],
    ['postgres://user:s%23cret@db.example/db', 'postgres://db.example/db'],
  ])('about %s names the server alone', ([url = '', name], { expect }) => {
    const target = parsePostgresUrl(url);
    const password = decodeURIComponent(/:([^:]*)@db/.exec(url)?.[1] ?? '');
    const error = exportError(target, new Error(`cannot log in with "${password}"`));
    expect(error.details).toEqual({ target: name, reason: 'cannot log in with "…"' });
  });

  test.for([
    'postgres://user:12?cret@db.example/db',
    'postgres://user:s?cret@db.example/db?sslmode=require',
    'postgres://user:12#cret@db.example/db',
    'postgres://user:s/cret@db.example/db',
    'postgres://user:cret@[db.example/db',
  ])('about %s shows nothing of a password that ends too early', async (url, { expect }) => {
    const refused = await failure(() => parsePostgresUrl(url));
    expect(refused).toMatchObject({ code: 'EXPORT_FAILED', target: 'postgres://…' });
    expect(JSON.stringify(refused)).not.toMatch(/cret|12/);
  });

  test('of our own is no error of the database', ({ expect }) => {
    expect(isDatabaseError(new TypeError('x'))).toBe(false);
    expect(isDatabaseError(new HelixFlowError('STORE_FAILED', { reason: 'x' }))).toBe(false);
    expect(isDatabaseError(new Error('connection terminated'))).toBe(true);
  });
});

test('a migration is never changed: whoever needs another table adds one', ({ expect }) => {
  expect(migrations.map((statements) => sha256Hex(statements.join(';')))).toEqual([
    '19d01573a3308a31c38d50fe4ddb024cfa944eb3e2670842c19b4866b9ca6ef2',
  ]);
});

test('an upsert touches only what has changed', ({ expect }) => {
  const columns = [
    { name: 'id', type: 'text' },
    { name: 'count', type: 'bigint' },
  ];
  expect(upsert('things', columns, ['id'], 'replace')).toBe(
    [
      'INSERT INTO helixflow.things AS known ("id", "count")',
      'SELECT "id", "count" FROM json_to_recordset($1::json) AS given ("id" text, "count" bigint)',
      'ON CONFLICT ("id") DO UPDATE SET "count" = excluded."count" WHERE (known."count") IS DISTINCT FROM (excluded."count")',
    ].join('\n'),
  );
});
