/** Keys as the gateway's service sees them once they were found good. */

import type { Access } from '../../gateway/access/judge.ts';
import type { AccountId, IssuerId, KeyId } from '../../protocol/ids.ts';

/** A user's key for every model, without limits unless the test gives some. */
export const accessOf = (changes: Partial<Access> = {}): Access => ({
  keyId: '0123456789abcdef' as KeyId,
  issuer: '12'.repeat(16) as IssuerId,
  account: 'local' as AccountId,
  role: 'user',
  models: [],
  limits: {},
  gateways: [],
  strict: false,
  ...changes,
});
