/** What others can make happen at will becomes two lines a minute of its kind at most, however often it happens. */

import type { Cancel, Clock } from '../protocol/ports.ts';
import { type Ms, seconds } from '../protocol/units.ts';
import type { Audit, AuditRecord } from './audit.ts';

export interface CoalesceOptions {
  readonly windowMs: Ms;
  /** Different refusals and failures told apart within one window; those beyond count together per action and reason. */
  readonly rowsMax: number;
}

/** At most about 100 lines a minute from refusals: a flood of them needs days to push older lines out of the log. */
export const coalesceDefaults: CoalesceOptions = { windowMs: seconds(60), rowsMax: 32 };

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
/** Different deeds of peers within one window that are watched for repetitions. */
const deedsMax = 1_024;

const rowKey = ({ action, actor, object, outcome, reason }: AuditRecord): string =>
  [action, actor, object, outcome, reason].join('\n');

function add(table: Map<string, Row>, key: string, row: Row): void {
  const known = table.get(key);
  if (known === undefined) table.set(key, row);
  else known.count += row.count;
}

/**
 * Passes on at once what was done, and the first refusal or failure of its kind; repetitions within the window follow as
 * one line with their count when the window ends. A peer that has the same done for it again and again, such as a
 * renewal, is counted in the same way; what anybody else does never is.
 */
export function createCoalescer(
  clock: Clock,
  write: (record: AuditRecord) => void,
  { windowMs, rowsMax }: CoalesceOptions = coalesceDefaults,
): Coalescer {
  let rows = new Map<string, Row>();
  let deeds = new Map<string, Row>();
  let overflow = new Map<string, Row>();
  let cancel: Cancel | undefined;

  const flush = (): void => {
    cancel?.();
    cancel = undefined;
    const told = [...rows.values(), ...deeds.values(), ...overflow.values()];
    rows = new Map();
    deeds = new Map();
    overflow = new Map();
    for (const { record, count } of told) {
      if (count > 0) write(count === 1 ? record : { ...record, count });
    }
  };
  const addOverflow = ({ action, outcome, reason }: AuditRecord, count: number): void => {
    const key = `${action} ${outcome} ${reason}`;
    const isMore = overflow.size >= overflowMax && !overflow.has(key);
    const record: AuditRecord = { action, actor: 'many', object: 'many', outcome, reason: isMore ? 'many' : reason };
    add(overflow, isMore ? `${action} ${outcome}` : key, { record, count });
  };
  /** Writes the first of its kind and counts the others. @returns false when the table takes no further kind. */
  const isCounted = (table: Map<string, Row>, max: number, record: AuditRecord): boolean => {
    const { count = 1, ...rest } = record;
    const key = rowKey(rest);
    if (table.has(key)) add(table, key, { record: rest, count });
    else if (table.size >= max) return false;
    else {
      table.set(key, { record: rest, count: 0 });
      write(record);
    }
    return true;
  };
  return {
    note: (record) => {
      const isDone = record.outcome === 'done';
      if (isDone && !record.actor.startsWith('peer:')) {
        write(record);
        return;
      }
      cancel ??= clock.timer(windowMs, flush);
      if (isDone) {
        if (!isCounted(deeds, deedsMax, record)) write(record);
      } else if (!isCounted(rows, rowsMax, record)) addOverflow(record, record.count ?? 1);
    },
    flush,
  };
}
