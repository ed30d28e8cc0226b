/** Certificate and key files with anything in them: taken whole, or refused with a reason that quotes neither. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'vitest';
import { openTls } from '../../../gateway/http/tls.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { selfSigned } from '../../support/certificate.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { recordingLog } from './fakes.ts';

/** Cut, with bytes changed, or with other text around it. */
const damaged = (text: string): fc.Arbitrary<Buffer> =>
  fc.oneof(
    fc.nat(text.length).map((end) => Buffer.from(text.slice(0, end))),
    fc.array(fc.tuple(fc.nat(text.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }).map((changes) => {
      const bytes = Buffer.from(text);
      for (const [at, byte] of changes) bytes[at] = byte;
      return bytes;
    }),
    fc
      .tuple(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 40 }))
      .map(([before, after]) => Buffer.concat([before, Buffer.from(text), after])),
  );

test('no file makes it throw anything else', async ({ expect }) => {
  const path = await mkdtemp(join(tmpdir(), 'hx-tls-fuzz-'));
  try {
    const [certFile, keyFile] = [join(path, 'door.crt'), join(path, 'door.key')];
    const { cert, key } = selfSigned();
    const secret = key.split('\n')[1] ?? '';
    const deps = { clock: new ManualClock(), log: recordingLog([]) };
    const options = { certFile, keyFile, minVersion: 'TLSv1.3' } as const;
    const outcome = async (): Promise<string> => {
      try {
        using tls = await openTls(deps, options);
        return tls.status().fingerprint;
      } catch (error) {
        if (!isHelixFlowError(error, 'CONFIG_INVALID')) throw error;
        return error.details.reason;
      }
    };
    await fc.assert(
      fc.asyncProperty(damaged(cert), damaged(key), fc.boolean(), async (certBytes, keyBytes, isKeyWhole) => {
        await writeFile(certFile, certBytes);
        await writeFile(keyFile, isKeyWhole ? key : keyBytes);
        expect(await outcome()).not.toContain(secret);
      }),
      { numRuns: 1_000 },
    );
  } finally {
    await rm(path, { recursive: true, force: true });
  }
});
