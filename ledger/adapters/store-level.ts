/** The real store: LevelDB in a directory that one process holds. */

import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Level } from 'level';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Store, StoreOp, StoreRange } from '../../protocol/ports.ts';

/** What this version writes, and the newest it can read. */
const formatNumber = 1;
const formatFile = 'helixflow-format';

type Bytes = Uint8Array;
type Db = Level<Bytes, Bytes>;
/** What LevelDB offers beside the interface that it shares with browsers. */
interface Compacting {
  compactRange(start: Bytes, end: Bytes): Promise<void>;
}

/** LevelDB hands out `Buffer`s, whose `slice` and printing differ from what the port promises. */
const plain = (bytes: Bytes): Bytes => new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length);

const codeOf = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause ? String(cause.code) : code;
};

const unusable = (path: string, cause: unknown): HelixFlowError => {
  const code = codeOf(cause);
  const reason = code === 'LEVEL_CORRUPTION' ? `its store is corrupt (${code})` : code;
  return new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason }, { cause });
};

/** Makes `path` and what is missing above it; `mkdir` with `recursive` never ends below `/proc`. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return;
    if (codeOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
    await makeDirectory(dirname(path));
    await mkdir(path, { mode: 0o700 });
  }
}

/** Writes the number so that after a crash it is whole or absent. */
async function writeFormat(path: string): Promise<void> {
  const draft = join(path, `${formatFile}.new`);
  const file = await open(draft, 'w', 0o600);
  try {
    await file.writeFile(`${formatNumber}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, join(path, formatFile));
}

async function readFormat(path: string): Promise<number | undefined> {
  try {
    return Number.parseInt(await readFile(join(path, formatFile), 'utf8'), 10);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Checked before LevelDB sees the directory, so that a newer layout is never touched. */
async function checkFormat(path: string): Promise<void> {
  const found = await readFormat(path);
  if (found === undefined) {
    await writeFormat(path);
  } else if (!Number.isSafeInteger(found) || found < 1) {
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason: `${formatFile} holds no number` });
  } else if (found > formatNumber) {
    throw new HelixFlowError('FORMAT_TOO_NEW', { path, found, known: formatNumber });
  }
}

class LevelStore implements Store {
  readonly #db: Db;
  /** Why nothing is served any more. */
  #refusal: string | undefined;

  constructor(db: Db) {
    this.#db = db;
  }

  #check(): void {
    if (this.#refusal !== undefined) throw new HelixFlowError('STORE_FAILED', { reason: this.#refusal });
  }

  #failed(cause: unknown): HelixFlowError {
    return new HelixFlowError('STORE_FAILED', { reason: this.#refusal ?? codeOf(cause) }, { cause });
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    this.#check();
    try {
      const value = await this.#db.get(key);
      return value === undefined ? undefined : plain(value);
    } catch (cause) {
      throw this.#failed(cause);
    }
  }

  async *range(range: StoreRange): AsyncGenerator<readonly [Bytes, Bytes]> {
    this.#check();
    try {
      for await (const [key, value] of this.#db.iterator(range)) {
        yield [plain(key), plain(value)];
        this.#check();
      }
    } catch (cause) {
      throw cause instanceof HelixFlowError ? cause : this.#failed(cause);
    }
  }

  async batch(ops: readonly StoreOp[], options: { readonly sync: boolean }): Promise<void> {
    this.#check();
    try {
      await this.#db.batch(ops as StoreOp[], options);
    } catch (cause) {
      const error = this.#failed(cause);
      this.#refusal ??= `a write failed: ${codeOf(cause)}`;
      throw error;
    }
  }

  async purge({ gte, lt }: Pick<StoreRange, 'gte' | 'lt'>): Promise<void> {
    this.#check();
    try {
      await (this.#db as unknown as Compacting).compactRange(gte, lt);
    } catch (cause) {
      throw this.#failed(cause);
    }
  }

  async close(): Promise<void> {
    this.#refusal = 'closed';
    await this.#db.close();
  }
}

/**
 * Opens the store in the directory `path`, making both if they are missing.
 *
 * @throws HelixFlowError DATA_DIR_HELD when a process has it open; FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it
 *   cannot be made, read or written, or is damaged.
 */
export async function openLevelStore(path: string): Promise<Store> {
  try {
    await makeDirectory(path);
    await checkFormat(path);
    const db: Db = new Level<Bytes, Bytes>(path, { keyEncoding: 'view', valueEncoding: 'view' });
    await db.open();
    return new LevelStore(db);
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    if (codeOf(cause) === 'LEVEL_LOCKED') {
      throw new HelixFlowError('DATA_DIR_HELD', { path, holder: 'another process' }, { cause });
    }
    throw unusable(path, cause);
  }
}
