/** What an issuer's desk makes, checked: keys with their entries, and the terms of accounts. */

import { issuerIdOf, type KeyGrant, type KeyTerms, signKey } from '../protocol/grants.ts';
import type { AccountId, KeyId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import type { Tokens } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { NewKey } from './desk.ts';
import { invalid } from './desk-checks.ts';
import type { AccountEntry, KeyEntry } from './entry.ts';

export interface AccountTerms extends Pick<AccountEntry, 'limits' | 'strict'> {
  readonly budget?: AccountEntry['budget'] | undefined;
}

export const accountEntry = (account: AccountId, { limits: rates, strict, budget }: AccountTerms): AccountEntry => ({
  kind: 'account',
  account,
  limits: rates,
  strict,
  ...(budget === undefined ? {} : { budget }),
});

/** A key to make, checked. */
export interface KeyPlan extends Pick<KeyGrant, 'keyId' | 'role' | 'gateways' | 'account' | 'strict'> {
  readonly terms: KeyTerms;
  readonly replaces?: KeyId;
}

/** A key that is made, and not yet handed out. */
export interface MadeKey extends NewKey {
  readonly entry: KeyEntry;
}

/** Who signs. */
export interface KeySigning {
  readonly tokens: Tokens;
  readonly mesh: Pick<MeshRecord, 'meshId'>;
  readonly issuer: IssuerRecord;
  readonly nowMs: UnixMs;
}

/** Signs a key; nobody may have it before its entry is written. @throws HelixFlowError CONFIG_INVALID when it gets too long. */
export async function makeKey({ terms, replaces, ...plan }: KeyPlan, signing: KeySigning): Promise<MadeKey> {
  const { mesh, issuer, tokens, nowMs } = signing;
  const { keyId, role, gateways, account } = plan;
  const grant: KeyGrant = { issuer: issuerIdOf(issuer.key.publicKey), ...plan, ...terms };
  const text = await signKey({ ...grant, meshId: mesh.meshId }, issuer.key, { tokens, nowMs });
  if (text.length > limits.tokenMaxChars) {
    throw invalid('the key would be too long for any client; name fewer or shorter model patterns, or fewer nodes');
  }
  const entry: KeyEntry = { kind: 'key', key: keyId, account, role, gateways, terms };
  return { text, grant, entry: replaces === undefined ? entry : { ...entry, replaces } };
}
