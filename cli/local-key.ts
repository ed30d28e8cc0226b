/** The API key that `helixflow up` keeps for whoever uses this machine. */

import { join } from 'node:path';
import { z } from 'zod';
import { isHelixFlowError } from '../protocol/errors.ts';
import { checkKey } from '../protocol/grants.ts';
import { issuerOf } from '../protocol/mesh.ts';
import { createKey } from './commands/keys-create.ts';
import type { DataDir } from './data-dir.ts';
import { readFileIfAny, writeFileAtomic } from './files.ts';
import type { KnownMesh } from './mesh-files.ts';
import { encodeRecord, parseRecord } from './peer-files.ts';
import type { World } from './peer-runtime.ts';

const schema = z.object({ key: z.string().min(1) });

/** Reads the key, or makes it where there is none that this mesh accepts. */
export async function openLocalKey({ tokens, clock }: World, dir: DataDir, known: KnownMesh): Promise<string> {
  const path = join(dir.peer('gateway').path, 'local-key.json');
  const text = await readFileIfAny(path);
  if (text !== undefined && known.issuer !== undefined) {
    const { key } = parseRecord(schema, text, path);
    const issuer = issuerOf(known.issuer);
    const issuers = new Map([[issuer.issuer, issuer]]);
    try {
      await checkKey(key, { tokens, meshId: known.mesh.meshId, issuers, nowMs: clock.wallMs() });
      return key;
    } catch (error) {
      if (!isHelixFlowError(error, 'KEY_INVALID') && !isHelixFlowError(error, 'KEY_EXPIRED')) throw error;
    }
  }
  const { key } = await createKey(known, { name: 'local', models: [] });
  await writeFileAtomic(path, encodeRecord({ key }));
  return key;
}
