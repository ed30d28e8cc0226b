/** The hashes of model files that are remembered on disk: they save time, and are never worth more than that. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'vitest';
import { openDigestCache } from '../../../../node/engines/llama/digest.ts';
import type { Log, LogFields } from '../../../../protocol/ports.ts';

const hash = { path: '/models/a.gguf', bytes: 7, modifiedMs: 1, sha256: 'ab'.repeat(32) };

function stage() {
  const folder = mkdtempSync(join(tmpdir(), 'hx-digests-'));
  const told: [string, LogFields | undefined][] = [];
  const write = (event: string, fields?: LogFields): void => void told.push([event, fields]);
  const log: Log = { debug: write, info: write, warn: write, error: write, with: () => log };
  return {
    folder,
    told,
    log,
    path: join(folder, 'digests.json'),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

test('are there again at the next start', async ({ expect }) => {
  using at = stage();
  await (await openDigestCache(at.log, at.path)).remember([hash]);
  expect((await openDigestCache(at.log, at.path)).known()).toEqual([hash]);
  expect(readdirSync(at.folder)).toEqual(['digests.json']);
});

test('of a newer version are left alone, and said to be', async ({ expect }) => {
  using at = stage();
  const newer = JSON.stringify({ format: 2, files: [hash] });
  writeFileSync(at.path, newer);
  const cache = await openDigestCache(at.log, at.path);
  expect(cache.known()).toEqual([]);
  await cache.remember([hash]);
  expect(cache.known()).toEqual([hash]);
  expect(readFileSync(at.path, 'utf8')).toBe(newer);
  expect(at.told).toEqual([['digest_cache_too_new', { path: at.path, found: 2, known: 1 }]]);
});

test.for(['not JSON', 'null', '[]', '{"format":0}', '{"format":"2"}', '{"format":1}', '{"format":1,"files":[{}]}'])(
  'that are damaged are replaced: %s',
  async (text, { expect }) => {
    using at = stage();
    writeFileSync(at.path, text);
    const cache = await openDigestCache(at.log, at.path);
    await cache.remember([hash]);
    expect(JSON.parse(readFileSync(at.path, 'utf8'))).toEqual({ format: 1, files: [hash] });
  },
);
