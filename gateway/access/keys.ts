/** Who may use this gateway: API keys, checked offline, remembered once checked, and judged anew at each request. */

import { sha256Hex } from '../../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { checkKey, type IssuerCertificate, type KeyGrant, peekKeyIssuer } from '../../protocol/grants.ts';
import type { IssuerId, MeshId, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { Clock, Tokens } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';
import { unixMs } from '../../protocol/units.ts';
import { type Access, accessOf, judgeKey, refusalError, type StalePolicy } from './judge.ts';
import type { KeyLedger } from './key-ledger.ts';

/** Keys that were good; about 1 kB each. */
const grantsMax = 10_000;
/** Texts that were not; few, since whoever sends them chooses how many there are. */
const refusalsMax = 1_000;
/** A refusal is forgotten so soon because this clock may have been wrong about when the key was made. */
const refusalMs = 60_000;
/** Longer than any token, prefix included. */
const keyMaxChars = limits.tokenMaxChars + 16;

export interface KeyCheckerOptions extends StalePolicy {
  readonly meshId: MeshId;
  readonly self: PeerId;
  /** Those whose keys count; may change, and does so at once. */
  readonly issuers: Pick<ReadonlyMap<IssuerId, IssuerCertificate>, 'get' | 'has'>;
}

export interface KeyCheckerDeps {
  readonly tokens: Tokens;
  readonly clock: Clock;
  readonly ledger: KeyLedger;
}

export interface KeyChecker {
  /**
   * What the key grants. At once (no promise) for a key that was checked before: about 1 µs, against 170 for a new one.
   * Everything but the signature is judged anew each time, by what the ledger holds at this moment.
   * @throws HelixFlowError KEY_INVALID, KEY_REVOKED, KEY_EXPIRED, KEY_NOT_HERE, KEY_UNVERIFIABLE; thrown or rejected
   * with, so call it within `try` and `await`.
   * @param before What the same text was found to grant earlier: its key is then not looked up, only judged.
   */
  check(text: string, before?: Access): Access | Promise<Access>;
}

/** A key whose signature was found good, and what it came to when it was last asked for. */
interface Known {
  readonly grant: KeyGrant;
  access: Access | undefined;
  terms: unknown;
  account: unknown;
  staleSeconds: number;
}

/**
 * Makes the door's check. Keys are remembered by their sha256, never as they are: a dump of this process's memory then
 * holds no more keys than there are requests, and how long a look-up takes says nothing about any key.
 */
export function createKeyChecker(deps: KeyCheckerDeps, options: KeyCheckerOptions): KeyChecker {
  const { tokens, clock, ledger } = deps;
  const { meshId, issuers, self, maxStaleMs } = options;
  const known = new Memory<Known>(grantsMax);
  /** Until when each text is refused without another look. */
  const refusals = new Memory<number>(refusalsMax);
  const running = new Map<string, Promise<Access>>();
  const keyOf = new WeakMap<Access, Known>();
  // A gateway that never heard of an issuer counts as just fallen behind when it started: strict keys are refused at
  // once, others served for the time of grace, so that a key works where nothing has arrived yet.
  const neverMs = unixMs(clock.wallMs() - maxStaleMs - 1);

  const judged = (key: Known): Access => {
    const { grant } = key;
    const facts = {
      grant,
      isIssuerGood: issuers.has(grant.issuer),
      standing: ledger.key(grant.keyId, grant.issuer),
      account: ledger.account(grant.account, grant.issuer),
      asOfMs: ledger.asOfMs(grant.issuer) ?? neverMs,
      nowMs: clock.wallMs(),
    };
    const verdict = judgeKey(facts, self, options);
    if (verdict.kind === 'refused') throw refusalError(verdict, grant.keyId);
    const { standing, account } = facts;
    const { staleSeconds } = verdict;
    const isSame =
      key.terms === standing?.terms && key.account === account?.limits && key.staleSeconds === staleSeconds;
    if (key.access !== undefined && isSame && key.access.strict === (grant.strict || account?.strict === true)) {
      return key.access;
    }
    key.terms = standing?.terms;
    key.account = account?.limits;
    key.staleSeconds = staleSeconds;
    key.access = accessOf(facts, staleSeconds);
    keyOf.set(key.access, key);
    return key.access;
  };

  const verify = async (text: string, name: string): Promise<Access> => {
    try {
      const checking = { tokens, meshId, issuers, nowMs: clock.wallMs(), ignoresExpiry: true };
      const grant = await checkKey(text, checking);
      const key: Known = { grant, access: undefined, terms: undefined, account: undefined, staleSeconds: 0 };
      known.set(name, key);
      return judged(key);
    } catch (error) {
      const isKnown = known.get(name) !== undefined;
      if (!isKnown && isHelixFlowError(error, 'KEY_INVALID')) refusals.set(name, clock.nowMs() + refusalMs);
      throw error;
    } finally {
      running.delete(name);
    }
  };

  return {
    check(text, before) {
      const same = before === undefined ? undefined : keyOf.get(before);
      if (same !== undefined) return judged(same);
      if (text.length > keyMaxChars) throw new HelixFlowError('KEY_INVALID', {});
      const name = sha256Hex(text);
      const key = known.get(name);
      if (key !== undefined) return judged(key);
      // What does not even name an issuer that counts leaves no trace here: there is no end to such texts.
      const issuer = peekKeyIssuer(text, tokens);
      if (issuer === undefined || !issuers.has(issuer)) throw new HelixFlowError('KEY_INVALID', {});
      const refusedUntilMs = refusals.get(name);
      if (refusedUntilMs !== undefined && clock.nowMs() < refusedUntilMs) throw new HelixFlowError('KEY_INVALID', {});
      // Many requests may arrive with one new key at once: it is verified once for all of them.
      const pending = running.get(name) ?? verify(text, name);
      running.set(name, pending);
      return pending;
    },
  };
}
