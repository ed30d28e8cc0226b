/** The counters of one day, as values for a checkpoint and back. */

import type { Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, PeerId, Tag } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { Reader } from '../protocol/reader.ts';
import type { UsageRow } from './usage.ts';
import type { UsageCaller } from './usage-codes.ts';
import { countNames, readCounts } from './usage-day.ts';

/** Rows in one part. */
export const partRowsMax = 1_024;
const numbersEach = 3 + countNames.length;

const damaged = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `checkpoint: ${reason}` });

/** Values that many rows share, each written once. */
class Shared {
  readonly values: Value[] = [];
  readonly #known = new Map<string, number>();

  of(name: string, write: () => Value): number {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const index = this.values.push(write()) - 1;
    this.#known.set(name, index);
    return index;
  }
}

/** At most `partRowsMax` rows of one day. */
export function writeRows(rows: readonly UsageRow[]): Value {
  const [callers, models, nodes] = [new Shared(), new Shared(), new Shared()];
  const numbers = rows.flatMap(([{ tagDay, account, key, gateway, model, node }, counts]) => {
    const caller = callers.of(`${tagDay} ${account} ${key} ${gateway}`, () => [
      tagDay,
      fromHex(account),
      fromHex(key),
      fromHex(gateway),
    ]);
    const codes = [caller, models.of(model, () => model), nodes.of(node, () => node)];
    return [...codes, ...countNames.map((name) => counts[name])];
  });
  return [callers.values, models.values, nodes.values, numbers];
}

const readTag = (r: Reader): Tag => toHex(r.bytes(8)) as Tag;

function readCaller(value: Value): UsageCaller {
  const r = new Reader(value, 'caller');
  return { tagDay: r.int(), account: readTag(r), key: readTag(r), gateway: toHex(r.bytes(32)) as AuthorId };
}

/** What `writeRows` wrote. @throws HelixFlowError FRAME_MALFORMED */
export function readRows(value: Value, day: number): UsageRow[] {
  const r = new Reader(value, 'day');
  const callers = r.list(partRowsMax, readCaller);
  const models = r.list(partRowsMax, (name) => new Reader([name], 'model').text(limits.modelNameMaxChars));
  const nodes = r.list(partRowsMax, (name) => new Reader([name], 'node').text(64) as PeerId);
  const numbers = r.ints(partRowsMax * numbersEach);
  const rows: UsageRow[] = [];
  for (let at = 0; at < numbers.length; at += numbersEach) {
    const [caller, model, node] = [
      callers[numbers[at] ?? -1],
      models[numbers[at + 1] ?? -1],
      nodes[numbers[at + 2] ?? -1],
    ];
    if (caller === undefined || model === undefined || node === undefined) throw damaged('no such value');
    const counts = Float64Array.from(numbers.slice(at + 3, at + numbersEach));
    if (counts.length < countNames.length) throw damaged('half a row');
    rows.push([{ day, ...caller, model, node }, readCounts(counts, 0)]);
  }
  return rows;
}
