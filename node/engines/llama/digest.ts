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

/** What the file says, and the format that it says it in. */
interface Cached {
  readonly found: number;
  readonly files: readonly FileHash[];
}

async function readCache(path: string): Promise<Cached> {
  const nothing = { found: format, files: [] };
  try {
    const parsed = JSON.parse(await readFile(path, 'utf8')) as { format?: unknown; files?: unknown } | null;
    if (!Number.isInteger(parsed?.format)) return nothing;
    const found = parsed?.format as number;
    if (found !== format || !Array.isArray(parsed?.files)) return { ...nothing, found };
    return { found, files: parsed.files.filter(isFileHash).slice(-filesMax) };
  } catch (error) {
    if (error instanceof SyntaxError || (error instanceof Error && 'code' in error)) return nothing;
    throw error;
  }
}

/**
 * Opens the cache at `cachePath`; without one, hashes are remembered for the life of the process. So they are where a
 * newer version wrote the file: it stays as it is.
 */
export async function openDigestCache(log: Log, cachePath: string | undefined): Promise<DigestCache> {
  const cached = cachePath === undefined ? undefined : await readCache(cachePath);
  const isNewer = cached !== undefined && cached.found > format;
  if (isNewer) log.warn('digest_cache_too_new', { path: cachePath, found: cached.found, known: format });
  const path = isNewer ? undefined : cachePath;
  let files = cached?.files ?? [];
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
