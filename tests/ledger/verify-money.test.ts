/** Money as `ledger verify` judges it: whose leases are, what they were raised to, prices at their last use. */

import { describe, test } from 'vitest';
import type { LeaseId, PriceId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { ban } from './feed-stage.ts';
import {
  audit,
  costMicro,
  early,
  type FeedMaker,
  fromLease,
  gateway,
  issuer,
  lease,
  line,
  node,
  price,
  priced,
  startMs,
  storeOf,
} from './verify-stage.ts';

const alice = node('alice');

const placesOf = async (...feeds: readonly FeedMaker[]): Promise<readonly string[]> =>
  (await audit(await storeOf(...feeds))).problems.map(({ place, what }) => `${place}: ${what}`);

describe('money', () => {
  test('of a lease is for its holder alone', async ({ expect }) => {
    const [money, one, two] = [issuer(), gateway('one'), gateway('two')];
    money.block([priced(), lease(one, 10 * costMicro)], early);
    two.block([ban(1)]);
    two.block([two.statement(alice.peer, [line('run', 1, fromLease)])]);
    two.block([{ kind: 'close', lease: 'ab'.repeat(16) as LeaseId, spentMicro: costMicro }]);
    const place = `${two.author}/${two.epoch}`;
    expect(await placesOf(money, two)).toEqual([
      `${place}/1/0 line 0 (${line('run', 1).run}.1): it is paid from another gateway’s lease ${'ab'.repeat(16)}`,
      `${place}/2/0: it closes another gateway’s lease ${'ab'.repeat(16)}`,
    ]);
  });

  test('of a lease is what it was raised to', async ({ expect }) => {
    const [money, g] = [issuer(), gateway()];
    money.block([priced(), lease(g, costMicro)], early);
    money.block([lease(g, 2 * costMicro)]);
    const lines = [1, 2].map((serial) => line('run', serial, fromLease));
    g.block([ban(1)]);
    g.block([g.statement(alice.peer, lines)]);
    expect(await placesOf(money, g)).toEqual([]);
  });

  test('that the gateway pays itself spends no lease', async ({ expect }) => {
    const [money, g] = [issuer(), gateway()];
    money.block([priced(), lease(g, costMicro)], early);
    const lines = [1, 2].map((serial) =>
      line('run', serial, { ...fromLease, payer: serial === 1 ? 'account' : 'gateway' }),
    );
    g.block([ban(1)]);
    g.block([g.statement(alice.peer, lines)]);
    expect(await placesOf(money, g)).toEqual([]);
  });

  test('by a price is checked where it was used last, too', async ({ expect }) => {
    const [money, g] = [issuer(), gateway()];
    const laterMs = startMs + 10_000_000;
    money.block([priced(), priced({ id: 'cc'.repeat(8) as PriceId, fromMs: unixMs(laterMs) })], early);
    const lines = [1, 2, 3].map((serial) =>
      line('run', serial, { price, startMs: unixMs(serial === 2 ? laterMs + 1_000_000 : startMs + serial) }),
    );
    g.block([ban(1)]);
    g.block([g.statement(alice.peer, lines)]);
    expect(await placesOf(money, g)).toEqual([
      `${g.author}/${g.epoch}/1/0 line 1 (${line('run', 2).run}.2): its price ${price.id} was not in force for qwen3 at ${alice.peer} then`,
    ]);
  });
});
