/** The log of a simulated world: its last lines, with the time and the process of each. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { Log, LogFields } from '../protocol/ports.ts';
import type { Kernel } from './kernel.ts';

/** One line of it. */
export interface LogLine {
  readonly atMs: number;
  readonly process: string;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly event: string;
  readonly fields: LogFields;
}

const linesMax = 5_000;

/** What all processes of a run wrote. */
export class WorldLog {
  readonly #kernel: Kernel;
  readonly #lines: LogLine[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** The last lines, oldest first. */
  lines(): readonly LogLine[] {
    return this.#lines.slice(-linesMax);
  }

  add(line: Omit<LogLine, 'atMs'>): void {
    this.#lines.push({ atMs: this.#kernel.nowMs, ...line });
    if (this.#lines.length > 2 * linesMax) this.#lines.splice(0, linesMax);
  }

  /** An error that nobody expected fails the run: production code would have logged it and gone on. */
  unexpected(error: unknown): void {
    if (error !== undefined && !isHelixFlowError(error)) this.#kernel.fail(error);
  }

  /** The port of one process. */
  port(process: string, own: LogFields = {}): Log {
    const line =
      (level: LogLine['level']) =>
      (event: string, fields: LogFields = {}): void =>
        this.add({ process, level, event, fields: { ...own, ...fields } });
    return {
      debug: line('debug'),
      info: line('info'),
      warn: line('warn'),
      error: (event, fields = {}, error) => {
        const code = isHelixFlowError(error) ? error.code : undefined;
        this.add({ process, level: 'error', event, fields: { ...own, ...fields, code } });
        this.unexpected(error);
      },
      with: (fields) => this.port(process, { ...own, ...fields }),
    };
  }
}
