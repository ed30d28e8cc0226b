/** Refusals of one actor, object and reason within a minute become two lines at most, however many there are. */

import type { Cancel, Clock } from '../protocol/ports.ts';
import { type Ms, seconds } from '../protocol/units.ts';
import type { Audit, AuditRecord } from './audit.ts';

export interface CoalesceOptions {
  readonly windowMs: Ms;
  /** Different refusals told apart within one window; those beyond count together per action and reason. */
  readonly rowsMax: number;
}

/** At most 256 lines a minute from refusals: a flood of them needs hours to push older lines out of the log. */
export const coalesceDefaults: CoalesceOptions = { windowMs: seconds(60), rowsMax: 128 };

/** `flush` writes what was counted so far, for a log that closes. */
export interface Coalescer extends Audit {
  flush(): void;
}

interface Row {
  readonly record: AuditRecord;
  /** Not yet told. */
  count: number;
}

/** Different actions and reasons told apart among what overflows. */
const overflowMax = 32;

/**
 * Passes on what was done or failed at once, and the first refusal of its kind, too; its repetitions within the
 * window follow as one line with their count when the window ends.
 */
export function createCoalescer(
  clock: Clock,
  write: (record: AuditRecord) => void,
  { windowMs, rowsMax }: CoalesceOptions = coalesceDefaults,
): Coalescer {
  let rows = new Map<string, Row>();
  let overflow = new Map<string, Row>();
  let cancel: Cancel | undefined;

  const flush = (): void => {
    cancel?.();
    cancel = undefined;
    const told = [...rows.values(), ...overflow.values()];
    rows = new Map();
    overflow = new Map();
    for (const { record, count } of told) {
      if (count > 0) write(count === 1 ? record : { ...record, count });
    }
  };
  const add = (table: Map<string, Row>, key: string, row: Row): void => {
    const known = table.get(key);
    if (known === undefined) table.set(key, row);
    else known.count += row.count;
  };
  const addOverflow = ({ action, outcome, reason }: AuditRecord, count: number): void => {
    const key = `${action} ${reason}`;
    const isMore = overflow.size >= overflowMax && !overflow.has(key);
    const record: AuditRecord = { action, actor: 'many', object: 'many', outcome, reason: isMore ? 'many' : reason };
    add(overflow, isMore ? action : key, { record, count });
  };
  return {
    note: (record) => {
      if (record.outcome !== 'refused') {
        write(record);
        return;
      }
      cancel ??= clock.timer(windowMs, flush);
      const { count = 1, ...rest } = record;
      const key = [rest.action, rest.actor, rest.object, rest.reason].join('\n');
      if (rows.has(key)) add(rows, key, { record: rest, count });
      else if (rows.size >= rowsMax) addOverflow(rest, count);
      else {
        rows.set(key, { record: rest, count: 0 });
        write(record);
      }
    },
    flush,
  };
}
