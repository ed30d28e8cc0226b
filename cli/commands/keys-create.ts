/** `helixflow keys create`: an API key, shown once and kept nowhere. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { toHex } from '../../protocol/crypto.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { type KeyGrant, signKey } from '../../protocol/grants.ts';
import type { AccountId, KeyId } from '../../protocol/ids.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { unixMs } from '../../protocol/units.ts';
import type { RunCommand } from '../command.ts';
import type { keysCreateOptions } from '../config/tables.ts';
import { openDataDir } from '../data-dir.ts';
import { type KnownMesh, readMeshOrFail } from '../mesh-files.ts';

/**
 * Signs a key with the issuer's key of this directory.
 * @throws HelixFlowError ISSUER_MISSING when the issuer's key is elsewhere.
 */
export async function createKey(
  { mesh, issuer }: KnownMesh,
  options: { readonly name: string; readonly models: readonly string[]; readonly lifetimeMs?: number | undefined },
): Promise<{ readonly grant: KeyGrant; readonly key: string }> {
  if (issuer === undefined) throw new HelixFlowError('ISSUER_MISSING', { meshId: mesh.meshId });
  const nowMs = systemClock().wallMs();
  const grant: KeyGrant = {
    keyId: toHex(systemRandom().bytes(8)) as KeyId,
    issuer: issuerOf(issuer).issuer,
    account: options.name as AccountId,
    role: 'user',
    models: options.models,
    limits: {},
    gateways: [],
    strict: false,
    ...(options.lifetimeMs === undefined ? {} : { expiresMs: unixMs(nowMs + options.lifetimeMs) }),
  };
  const signing = { tokens: createJoseTokens(), nowMs };
  return { grant, key: await signKey({ ...grant, meshId: mesh.meshId }, issuer.key, signing) };
}

export const runKeysCreate: RunCommand<typeof keysCreateOptions> = async (config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const { name, models, expires } = config;
  const { grant, key } = await createKey(await readMeshOrFail(dir), { name, models, lifetimeMs: expires });
  const ends = grant.expiresMs === undefined ? undefined : new Date(grant.expiresMs).toISOString();
  output.data({ id: grant.keyId, key, account: grant.account, models, expires: ends }, key);
  output.note(
    `Key ${grant.keyId} of account ${name}, good ${ends === undefined ? 'without end' : `until ${ends}`}. It is shown only now.`,
  );
  return 0;
};
