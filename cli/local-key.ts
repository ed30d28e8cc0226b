/** The API key that `helixflow up` keeps for whoever uses this machine. */

import { join } from 'node:path';
import { z } from 'zod';
import { isHelixFlowError } from '../protocol/errors.ts';
import type { KeyGrant } from '../protocol/grants.ts';
import type { DataDir } from './data-dir.ts';
import { readFileIfAny, writeFileAtomic } from './files.ts';
import { encodeRecord, parseRecord } from './peer-files.ts';

const schema = z.object({ key: z.string().min(1) });

/** What tells that the key is good for nothing (any more). */
const refusals = ['KEY_INVALID', 'KEY_EXPIRED', 'KEY_REVOKED', 'KEY_NOT_HERE'] as const;

export interface LocalKeyDeps {
  /** The gateway's own check. */
  readonly check: (text: string) => KeyGrant | Promise<KeyGrant>;
  /** Makes a key of this name, at the issuer's desk. */
  readonly create: (name: string) => Promise<{ readonly text: string }>;
}

/** Reads the key, or makes it where there is none that this gateway accepts. */
export async function openLocalKey(deps: LocalKeyDeps, dir: DataDir): Promise<string> {
  const path = join(dir.peer('gateway').path, 'local-key.json');
  const text = await readFileIfAny(path);
  if (text !== undefined) {
    const { key } = parseRecord(schema, text, path);
    try {
      await deps.check(key);
      return key;
    } catch (error) {
      if (!refusals.some((code) => isHelixFlowError(error, code))) throw error;
    }
  }
  const { text: key } = await deps.create('local');
  await writeFileAtomic(path, encodeRecord({ key }));
  return key;
}
