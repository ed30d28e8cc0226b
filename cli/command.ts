/** What every command gets, and the form that a command has. */

import type { ConfigOf, OptionTable } from './config/option.ts';
import type { commonOptions } from './config/tables.ts';
import type { Output } from './output.ts';

/** The values of the options that all commands share. */
export type CommonConfig = ConfigOf<typeof commonOptions>;

export interface CommandContext {
  readonly common: CommonConfig;
  readonly output: Output;
  /** The first line of stdin that is not empty; '' when there is none. @throws HelixFlowError CONFIG_INVALID when it is longer than `maxBytes`. */
  readonly readLine: (maxBytes: number) => Promise<string>;
  /** What somebody types at the terminal, unseen; undefined where there is no terminal. */
  readonly readSecret: (question: string) => Promise<string | undefined>;
}

/** Runs a command; the result is the exit code. Operating errors are thrown. */
export type RunCommand<Table extends OptionTable> = (
  config: ConfigOf<Table>,
  context: CommandContext,
) => Promise<number>;
