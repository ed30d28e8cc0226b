/** Who may use this gateway: API keys, checked offline, and remembered once checked. */

import { sha256Hex } from '../../protocol/crypto.ts';
import { type ErrorCode, HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { checkKey, type IssuerCertificate, type KeyGrant } from '../../protocol/grants.ts';
import type { IssuerId, MeshId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { Clock, Tokens } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';

/** Keys that were good; about 1 kB each. */
const grantsMax = 10_000;
/** Texts that were not; few, since whoever sends them chooses how many there are. */
const refusalsMax = 1_000;
/** A refusal is forgotten so soon because an issuer may become known. */
const refusalMs = 60_000;
/** Longer than any token, prefix included. */
const keyMaxChars = limits.tokenMaxChars + 16;

export interface KeyCheckerOptions {
  readonly meshId: MeshId;
  /** Those whose keys count; may change, and does so at once. */
  readonly issuers: ReadonlyMap<IssuerId, IssuerCertificate>;
}

export interface KeyChecker {
  /**
   * What the key grants. At once (no promise) for a key that was checked before: about 2 µs, against 100 for a new one.
   * Expiry and issuer are judged anew each time.
   * @throws HelixFlowError KEY_INVALID, KEY_EXPIRED; thrown or rejected with, so call it within `try` and `await`.
   */
  check(text: string): KeyGrant | Promise<KeyGrant>;
}

interface Refusal {
  readonly code: RefusalCode;
  readonly untilMs: number;
}
type RefusalCode = Extract<ErrorCode, 'KEY_INVALID' | 'KEY_EXPIRED'>;

/**
 * Makes the door's check. Keys are remembered by their sha256, never as they are: a dump of this process's memory then
 * holds no more keys than there are requests, and how long a look-up takes says nothing about any key.
 */
export function createKeyChecker(
  deps: { readonly tokens: Tokens; readonly clock: Clock },
  options: KeyCheckerOptions,
): KeyChecker {
  const { tokens, clock } = deps;
  const grants = new Memory<KeyGrant>(grantsMax);
  const refusals = new Memory<Refusal>(refusalsMax);
  const running = new Map<string, Promise<KeyGrant>>();

  const known = (name: string): KeyGrant | undefined => {
    const grant = grants.get(name);
    if (grant === undefined) return undefined;
    if (!options.issuers.has(grant.issuer)) throw new HelixFlowError('KEY_INVALID', {});
    if (grant.expiresMs !== undefined && grant.expiresMs <= clock.wallMs()) throw new HelixFlowError('KEY_EXPIRED', {});
    return grant;
  };

  const verify = async (text: string, name: string): Promise<KeyGrant> => {
    const { meshId, issuers } = options;
    try {
      const grant = await checkKey(text, { tokens, meshId, issuers, nowMs: clock.wallMs() });
      grants.set(name, grant);
      return grant;
    } catch (error) {
      if (isHelixFlowError(error, 'KEY_INVALID') || isHelixFlowError(error, 'KEY_EXPIRED')) {
        refusals.set(name, { code: error.code, untilMs: clock.nowMs() + refusalMs });
      }
      throw error;
    } finally {
      running.delete(name);
    }
  };

  return {
    check(text) {
      if (text.length > keyMaxChars) throw new HelixFlowError('KEY_INVALID', {});
      const name = sha256Hex(text);
      const grant = known(name);
      if (grant !== undefined) return grant;
      const refusal = refusals.get(name);
      if (refusal !== undefined && clock.nowMs() < refusal.untilMs) throw new HelixFlowError(refusal.code, {});
      // Many requests may arrive with one new key at once: it is verified once for all of them.
      const pending = running.get(name) ?? verify(text, name);
      running.set(name, pending);
      return pending;
    },
  };
}
