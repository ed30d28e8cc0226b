/** Ends requests under way whose key was revoked with a cut, in the turn in which this gateway learns of it. */

import type { Ledger } from '../../ledger/ledger.ts';
import type { AuthorId, IssuerId, KeyId } from '../../protocol/ids.ts';
import type { Cancel, Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';

export interface CutDeps {
  readonly clock: Clock;
  readonly ledger: Pick<Ledger, 'standing' | 'roots' | 'authorsOf' | 'onChange'>;
  /** As `Gateway.cut`. */
  readonly cut: (key: KeyId, issuer: IssuerId) => void;
}

/** A revocation that lies ahead is looked at again this often: the wall clock may jump. */
const lookEveryMs = 3_600_000;

/** Follows the ledger until it is told to stop. */
export function followCuts({ clock, ledger, cut }: CutDeps): Cancel {
  /** Revocations that lie ahead, by key and author. */
  const waiting = new Map<string, Cancel>();

  const look = (key: KeyId, by: AuthorId): void => {
    const name = `${by}${key}`;
    waiting.get(name)?.();
    waiting.delete(name);
    const revoked = ledger.standing.key(key, by)?.revoked;
    if (revoked === undefined || !revoked.cut) return;
    const aheadMs = revoked.fromMs - clock.wallMs();
    if (aheadMs > 0) {
      waiting.set(
        name,
        clock.timer(ms(Math.min(aheadMs, lookEveryMs)), () => look(key, by)),
      );
      return;
    }
    for (const issuer of ledger.roots.issuers.keys()) if (ledger.authorsOf(issuer).includes(by)) cut(key, issuer);
  };

  const stop = ledger.onChange((change) => {
    if (change.kind === 'key') look(change.key, change.by);
  });
  return () => {
    stop();
    for (const cancel of waiting.values()) cancel();
    waiting.clear();
  };
}
