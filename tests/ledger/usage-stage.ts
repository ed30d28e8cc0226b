/** What tests of usage share: lines and facts that are told apart by a few numbers, drawn or made. */

import fc from 'fast-check';
import { lineOutcomes, type UsageLine } from '../../ledger/line.ts';
import { freePrice, type Price } from '../../ledger/price.ts';
import type { AttemptFacts, Said } from '../../ledger/settlement.ts';
import { refusalReasons } from '../../ledger/statement.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import type { AuthorId, ModelDigest, PeerId, PriceId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { ms, unixMs } from '../../protocol/units.ts';

const nodeKeys = ['Nora', 'Noah', 'Nina'].map((name) => keyFromSeed(sha256(name))) as [
  SigningKey,
  SigningKey,
  SigningKey,
];
export const nodes = nodeKeys.map(({ publicKey }) => peerIdOf(publicKey)) as [PeerId, PeerId, PeerId];
/** The key of a node. */
export const keyOfNode = (node: PeerId): SigningKey => nodeKeys[nodes.indexOf(node)] ?? nodeKeys[0];
export const authors = ['a1', 'b2'].map((two) => two.repeat(32) as AuthorId) as [AuthorId, AuthorId];
export const runs = ['11', '22'].map((two) => two.repeat(16) as ProcessId) as [ProcessId, ProcessId];
const hex = (number: number, characters: number): string => number.toString(16).padStart(characters, '0');
export const tagOf = (number: number): Tag => hex(number, 16) as Tag;

export const prices: readonly Price[] = [
  freePrice,
  { id: hex(2, 16) as PriceId, prompt: 3_000_000, cached: 1_000_000, completion: 7_000_000 },
  { id: hex(3, 16) as PriceId, prompt: 333_333, cached: 1, completion: 999_999 },
];
const [, plain = freePrice] = prices;

export const dayMs = 86_400_000;
export const firstDay = 20_000;

/** A whole answer to a request of one attempt, unless told otherwise. */
export function lineOf(serial: number, changes: Partial<UsageLine> = {}): UsageLine {
  const first = changes.first ?? serial;
  return {
    run: runs[0],
    serial,
    first,
    request: hex(first, 32) as RequestId,
    model: 'm',
    digest: 'dd'.repeat(32) as ModelDigest,
    caller: { day: firstDay, account: tagOf(1), key: tagOf(2) },
    price: plain,
    payer: 'account',
    startMs: unixMs(firstDay * dayMs + serial),
    firstMs: ms(5),
    durationMs: ms(50),
    promptTokens: 10,
    cachedTokens: 4,
    completionTokens: 20,
    nodeTokens: 20,
    outcome: 'done',
    ...changes,
  };
}

export const said = (line: UsageLine, changes: Partial<Said> = {}): Said => ({
  line,
  isCountersigned: true,
  ...changes,
});
export const factsOf = (said: readonly Said[], node = nodes[0], author = authors[0]): AttemptFacts => ({
  author,
  node,
  said,
});

const tokens = fc.nat(30);

/** Anything that a gateway may say, honest or not. */
export const someLine: fc.Arbitrary<UsageLine> = fc
  .record({
    run: fc.constantFrom(...runs),
    serial: fc.integer({ min: 1, max: 6 }),
    back: fc.nat(3),
    outcome: fc.constantFrom(...lineOutcomes),
    price: fc.constantFrom(...prices),
    payer: fc.constantFrom('account' as const, 'gateway' as const),
    promptTokens: tokens,
    cachedTokens: tokens,
    completionTokens: tokens,
    nodeTokens: fc.option(tokens, { nil: undefined }),
    lease: fc.constantFrom(undefined, tagOf(8), tagOf(9)),
    account: fc.constantFrom(tagOf(1), tagOf(2)),
    day: fc.nat(2),
  })
  .map(({ serial, back, day, account, lease, nodeTokens, cachedTokens, ...rest }) => {
    const { nodeTokens: _, ...line } = lineOf(serial, {
      ...rest,
      first: Math.max(1, serial - back),
      cachedTokens: Math.min(cachedTokens, rest.promptTokens),
      caller: { day: firstDay, account, key: tagOf(3) },
      startMs: unixMs((firstDay + day) * dayMs),
      ...(lease === undefined ? {} : { lease }),
    });
    return nodeTokens === undefined ? line : { ...line, nodeTokens };
  });

const someSaid: fc.Arbitrary<Said> = fc
  .record({ line: someLine, verdict: fc.constantFrom('none', 'signed', 'signed', ...refusalReasons) })
  .map(({ line, verdict }) => {
    if (verdict === 'none') return said(line, { isCountersigned: false });
    if (verdict === 'signed' || line.outcome === 'running') return said(line);
    return said(line, { refused: verdict });
  });

/** One thing said of one attempt; many of them are about the same. */
export const someFact: fc.Arbitrary<AttemptFacts> = fc
  .record({
    said: someSaid,
    node: fc.constantFrom(...nodes),
    author: fc.constantFrom(...authors),
    running: fc.option(tokens, { nil: undefined }),
  })
  .map(({ said, node, author, running }) => ({
    ...factsOf([said], node, author),
    ...(running === undefined ? {} : { runningTokens: running }),
  }));
export const someFacts: fc.Arbitrary<readonly AttemptFacts[]> = fc.array(someFact, { maxLength: 16 });
