/** What a model is: the digest of its weights and template, with the hashes of large files remembered on disk. */

import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { sha256Hex } from '../../../protocol/crypto.ts';
import type { ModelDigest } from '../../../protocol/ids.ts';
import type { Log } from '../../../protocol/ports.ts';
import type { FileHash, Loaded } from './messages.ts';

const format = 1;
const filesMax = 256;

/** Design §5: engine kind, weights (all shards), chat template, tokenizer overrides (this engine has none). */
export const digestModel = ({ weights, chatTemplate }: Pick<Loaded, 'weights' | 'chatTemplate'>): ModelDigest =>
  sha256Hex(JSON.stringify(['llama', weights.map(({ sha256 }) => sha256), chatTemplate, {}])) as ModelDigest;

const isFileHash = (value: unknown): value is FileHash => {
  const { path, bytes, modifiedMs, sha256 } = (value ?? {}) as Partial<FileHash>;
  return (
    typeof path === 'string' &&
    typeof bytes === 'number' &&
    typeof modifiedMs === 'number' &&
    typeof sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(sha256)
  );
};

/** Hashes of files that were read before. A file that cannot be used is as good as none: it only saves time. */
export interface DigestCache {
  known(): readonly FileHash[];
  remember(hashes: readonly FileHash[]): Promise<void>;
}

async function readCache(path: string): Promise<readonly FileHash[]> {
  try {
    const parsed = JSON.parse(await readFile(path, 'utf8')) as { format?: unknown; files?: unknown };
    if (parsed.format !== format || !Array.isArray(parsed.files)) return [];
    return parsed.files.filter(isFileHash).slice(-filesMax);
  } catch (error) {
    if (error instanceof SyntaxError || (error instanceof Error && 'code' in error)) return [];
    throw error;
  }
}

/** Opens the cache at `path`; without one, hashes are remembered for the life of the process. */
export async function openDigestCache(log: Log, path: string | undefined): Promise<DigestCache> {
  let files = path === undefined ? [] : await readCache(path);
  return {
    known: () => files,
    async remember(hashes) {
      if (hashes.every((hash) => files.includes(hash))) return;
      const kept = files.filter((file) => !hashes.some((hash) => hash.path === file.path));
      files = [...kept, ...hashes].slice(-filesMax);
      if (path === undefined) return;
      const draft = `${path}.${randomBytes(4).toString('hex')}`;
      try {
        await writeFile(draft, JSON.stringify({ format, files }), { mode: 0o600 });
        await rename(draft, path);
      } catch (error) {
        if (!(error instanceof Error && 'code' in error)) throw error;
        log.warn('digest_cache_not_written', { path, reason: error.message });
      }
    },
  };
}
