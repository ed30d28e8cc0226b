/** Tabs, prices and budgets in memory: what a gateway's hot path wrote and held, and what it is told when. */

import type { AccountingDeps } from '../../gateway/accounting.ts';
import type { MoneyHold } from '../../ledger/budgets.ts';
import { freePrice, type Price } from '../../ledger/price.ts';
import type { AttemptEnd, AttemptStart, OpenLine } from '../../ledger/tabs.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { PeerId, Tag } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';

/** A line, or an attempt that has none yet. */
export interface KeptLine {
  readonly serial: number;
  readonly start: AttemptStart;
  received: number;
  end: AttemptEnd | undefined;
  isDropped: boolean;
}

/** Money set aside, as the hot path left it. */
export interface KeptHold {
  heldMicro: number;
  spentMicro: number | undefined;
  settled: number;
}

export const leaseTag = '5e5e5e5e5e5e5e5e' as Tag;
const accountTag = 'acacacacacacacac' as Tag;
const keyTag = 'bcbcbcbcbcbcbcbc' as Tag;

export class MemoryAccounting implements AccountingDeps {
  readonly lines: KeptLine[] = [];
  readonly holds: KeptHold[] = [];
  prices = new Map<PeerId, Price>();
  price: Price = freePrice;
  /** Of all holds together; what nobody holds may be held. */
  budgetMicro = Number.POSITIVE_INFINITY;
  isGrace = false;
  /** What a lease that has to be asked for waits for. */
  whenLeased: Promise<void> | undefined;
  /** While it is true lines wait for their disk, until `sync`. */
  isSlow = false;
  error: HelixFlowError<'STORE_FAILED'> | undefined;
  #waiting: (() => void)[] = [];

  callerOf(): { day: number; account: Tag; key: Tag } {
    return { day: 1, account: accountTag, key: keyTag };
  }

  priceOf(_model: string, node: PeerId): Price {
    return this.prices.get(node) ?? this.price;
  }

  get heldMicro(): number {
    return this.holds.reduce((sum, { heldMicro }) => sum + heldMicro, 0);
  }

  get spentMicro(): number {
    return this.holds.reduce((sum, { spentMicro = 0 }) => sum + spentMicro, 0);
  }

  hold(_access: unknown, needMicro: number): MoneyHold | HelixFlowError | Promise<MoneyHold | HelixFlowError> {
    const take = (): MoneyHold | HelixFlowError => this.#take(needMicro);
    return this.whenLeased === undefined ? take() : this.whenLeased.then(take);
  }

  #take(needMicro: number): MoneyHold | HelixFlowError {
    const leftMicro = this.budgetMicro - this.heldMicro - this.spentMicro;
    if (needMicro > leftMicro) return new HelixFlowError('BUDGET_EXHAUSTED', { leftMicro, needMicro });
    const hold: KeptHold = { heldMicro: needMicro, spentMicro: undefined, settled: 0 };
    this.holds.push(hold);
    return {
      lease: leaseTag,
      isGrace: this.isGrace,
      grow: (amountMicro) => {
        if (hold.settled > 0 || amountMicro > this.budgetMicro - this.heldMicro - this.spentMicro) return false;
        hold.heldMicro += amountMicro;
        return true;
      },
      settle: (spentMicro) => {
        hold.settled += 1;
        if (hold.settled > 1) return;
        if (spentMicro > hold.heldMicro) throw new Error(`${spentMicro} spent of ${hold.heldMicro}`);
        hold.heldMicro = 0;
        hold.spentMicro = spentMicro;
      },
    };
  }

  refusal(): HelixFlowError | undefined {
    return this.error === undefined ? undefined : new HelixFlowError('USAGE_UNRECORDED', {});
  }

  begin(start: AttemptStart): OpenLine {
    const line: KeptLine = {
      serial: this.lines.length + 1,
      start,
      received: 0,
      end: undefined,
      isDropped: false,
    };
    this.lines.push(line);
    return {
      serial: line.serial,
      startMs: unixMs(1_700_000_000_000),
      received: (tokens) => {
        line.received = tokens;
      },
      end: (end, durable) => {
        if (line.end !== undefined) return;
        line.end = end;
        this.#waiting.push(() => durable(this.error));
        if (!this.isSlow) queueMicrotask(() => this.sync());
      },
      drop: () => {
        line.isDropped = true;
      },
    };
  }

  /** What waits reaches the disk now, or never will. */
  sync(): void {
    for (const tell of this.#waiting.splice(0)) tell();
  }

  /** Every line with its end, in the order of their serials. */
  ends(): (AttemptEnd | undefined)[] {
    return this.lines.filter(({ isDropped }) => !isDropped).map(({ end }) => end);
  }
}
