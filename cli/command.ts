/** What every command gets, and the form that a command has. */

import type { ConfigOf, OptionTable } from './config/option.ts';
import type { commonOptions } from './config/tables.ts';
import type { Output } from './output.ts';

/** The values of the options that all commands share. */
export type CommonConfig = ConfigOf<typeof commonOptions>;

export interface CommandContext {
  readonly common: CommonConfig;
  readonly output: Output;
  /** The whole of stdin, at most `maxBytes`. */
  readonly readStdin: (maxBytes: number) => Promise<string>;
}

/** Runs a command; the result is the exit code. Operating errors are thrown. */
export type RunCommand<Table extends OptionTable> = (
  config: ConfigOf<Table>,
  context: CommandContext,
) => Promise<number>;
