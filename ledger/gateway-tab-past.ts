/** What earlier processes of this gateway left: lines on disk, some of which their statements hold already. */

import type { ProcessId } from '../protocol/ids.ts';
import type { PendingLine } from './gateway-tab.ts';
import { Ranges } from './gateway-tab-ranges.ts';
import { attemptName, type UsageLine } from './line.ts';

type Attempt = Pick<UsageLine, 'run' | 'serial'>;

export class Past {
  /** What was stated before this process began; asked while the log is read, and let go then. */
  #stated: Map<ProcessId, Ranges> | undefined = new Map();
  readonly #left = new Map<string, PendingLine>();

  /** Everything that was on disk is known. */
  get isRead(): boolean {
    return this.#stated === undefined;
  }

  read(): void {
    this.#stated = undefined;
  }

  isStated({ run, serial }: Attempt): boolean {
    return this.#stated?.get(run)?.has(serial) ?? false;
  }

  /** No statement is known that holds this line. */
  leave(pending: PendingLine): void {
    this.#left.set(attemptName(pending.line), pending);
  }

  /** An earlier process stated this attempt. @returns the line that was left of it. */
  stated({ run, serial }: Attempt): PendingLine | undefined {
    if (this.#stated === undefined)
      return this.#left.size === 0 ? undefined : this.#left.get(attemptName({ run, serial }));
    let serials = this.#stated.get(run);
    if (serials === undefined) {
      serials = new Ranges();
      this.#stated.set(run, serials);
    }
    serials.add(serial);
    return undefined;
  }

  /** A statement holds the line. */
  done({ line }: PendingLine): void {
    if (this.#left.size > 0) this.#left.delete(attemptName(line));
  }
}
