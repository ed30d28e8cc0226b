/** Wrong keys at the clients' door: whoever tries many of them waits; a good key never does. */

import { describe, test } from 'vitest';
import type { AuditRecord } from '../../../ledger/audit.ts';
import { seconds } from '../../../protocol/units.ts';
import { type Fixture, openApp } from './fakes.ts';

const failures = { failuresMax: 3, windowMs: seconds(60), addressesMax: 8 };

/** Status and code of a look at the models. */
async function look(fixture: Fixture, key: string | undefined, remoteAddress = '192.0.2.1') {
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const response = await fixture.app.inject({ url: '/v1/models', headers, remoteAddress });
  return [response.statusCode, response.headers['x-helixflow-error'], response.headers['retry-after']];
}

const served = [200, undefined, undefined];
const wrong = [401, 'KEY_INVALID', undefined];

describe('wrong keys', () => {
  test('of one address are told to wait, at once or after a look at the signature; a good key passes all the same', async ({
    expect,
  }) => {
    await using fixture = openApp({ failures });
    for (const key of ['sk-hx-guess', 'sk-hx-wrong-slow', 'sk-hx-guess']) {
      expect(await look(fixture, key)).toEqual(wrong);
      await fixture.clock.advance(10_000);
    }
    for (const key of ['sk-hx-guess', 'sk-hx-wrong-slow']) {
      expect(await look(fixture, key)).toEqual([429, 'RATE_LIMITED', '30']);
    }
    for (const key of ['sk-hx-good', 'sk-hx-slow']) expect(await look(fixture, key)).toEqual(served);
    expect(await look(fixture, 'sk-hx-guess', '192.0.2.2')).toEqual(wrong);
    await fixture.clock.advance(30_000);
    expect(await look(fixture, 'sk-hx-guess')).toEqual(wrong);
  });

  test('count on loopback, too, and good ones never count, however many clients share an address', async ({
    expect,
  }) => {
    await using fixture = openApp({ failures });
    for (let tries = 0; tries < 200; tries += 1) expect(await look(fixture, 'sk-hx-good', '127.0.0.1')).toEqual(served);
    for (let tries = 0; tries < 3; tries += 1) expect(await look(fixture, 'sk-hx-guess', '127.0.0.1')).toEqual(wrong);
    expect((await look(fixture, 'sk-hx-guess', '127.0.0.1'))[0]).toBe(429);
    expect(await look(fixture, 'sk-hx-good', '127.0.0.1')).toEqual(served);
  });

  test('are those that no issuer has signed: one that is missing or has expired is told so each time', async ({
    expect,
  }) => {
    await using fixture = openApp({ failures });
    for (let tries = 0; tries < 10; tries += 1) {
      expect((await look(fixture, undefined))[1]).toBe('KEY_MISSING');
      expect((await look(fixture, 'sk-hx-old'))[1]).toBe('KEY_EXPIRED');
    }
    for (let tries = 0; tries < 4; tries += 1) await look(fixture, 'sk-hx-guess');
    expect((await look(fixture, undefined))[1]).toBe('KEY_MISSING');
    expect((await look(fixture, 'sk-hx-old'))[1]).toBe('KEY_EXPIRED');
  });

  test('may be a hundred in a minute unless somebody says otherwise', async ({ expect }) => {
    await using fixture = openApp();
    for (let tries = 0; tries < 100; tries += 1) expect(await look(fixture, 'sk-hx-guess')).toEqual(wrong);
    expect(await look(fixture, 'sk-hx-guess')).toEqual([429, 'RATE_LIMITED', '60']);
  });

  test('stand in the audit log as nobody’s, also while they wait', async ({ expect }) => {
    const noted: AuditRecord[] = [];
    await using fixture = openApp({ failures }, { audit: { note: (record) => void noted.push(record) } });
    for (let tries = 0; tries < 4; tries += 1) await look(fixture, 'sk-hx-guess');
    expect(noted.map(({ actor, reason }) => [actor, reason])).toEqual([
      ...Array.from({ length: 3 }, () => ['none', 'KEY_INVALID']),
      ['none', 'RATE_LIMITED'],
    ]);
  });
});
