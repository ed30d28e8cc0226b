/** The command line's grammar: commander over the table of commands. */

import { Command, CommanderError, Option } from 'commander';
import { HelixFlowError } from '../protocol/errors.ts';
import { type CliCommand, commands, groups } from './commands.ts';
import { helpText } from './config/describe.ts';
import { isArgument, longFlag, type OptionRow, type OptionTable, shapeOf } from './config/option.ts';
import { commonOptions } from './config/tables.ts';
import { redact, redactValue } from './redact.ts';
import { version } from './version.ts';

/** What the arguments ask for. */
export type Invocation =
  | { readonly kind: 'run'; readonly command: CliCommand; readonly flags: Readonly<Record<string, unknown>> }
  | { readonly kind: 'print'; readonly text: string };

const collect = (value: string, earlier: readonly string[] | undefined): readonly string[] => [
  ...(earlier ?? []),
  value,
];

function addOptions(command: Command, table: OptionTable): void {
  const rows = Object.values<OptionRow>(table).filter(({ flag }) => flag !== '');
  for (const row of rows) {
    if (isArgument(row)) {
      command.argument(row.flag, helpText(row));
      continue;
    }
    const option = new Option(row.flag, helpText(row));
    command.addOption(shapeOf(row).type === 'array' ? option.argParser(collect) : option);
    if (row.negatable) command.addOption(new Option(longFlag(row).replace('--', '--no-')).hideHelp());
  }
}

/** What follows the command, by the keys of its table. */
function argumentsOf(command: Command, table: OptionTable): Record<string, unknown> {
  const keys = Object.entries(table).flatMap(([key, row]) => (isArgument(row) ? [key] : []));
  return Object.fromEntries(keys.map((key, index) => [key, command.args[index]]));
}

const words = (path: string): string[] => path.split(' ');

/** Commander's own words, without its prefix and layout. */
const reasonOf = (error: CommanderError): string =>
  redact(error.message)
    .replace(/^error: /, '')
    .replace(/[^\s']{81,}/g, redactValue)
    .replace(/\n\((Did you mean .*)\)$/s, '; $1')
    .replaceAll('Did', 'did');

/** The command, or group of commands, that the arguments begin with. */
export function commandIn([first = '', second = '']: readonly string[]): string | undefined {
  const path = `${first} ${second}`;
  if (commands.some((command) => command.path === path)) return path;
  return first in groups || commands.some((command) => command.path === first) ? first : undefined;
}

/** What stands before the last word of `helixflow node --json drain`: only options that all commands share. */
function commonFlags(parent: Command): Record<string, unknown> {
  const given = parent.opts();
  const foreign = Object.keys(given).find((key) => !(key in commonOptions));
  if (foreign === undefined) return given;
  const reason = `an option of helixflow ${parent.name()} itself stands before the command: ${foreign}`;
  throw new HelixFlowError('CONFIG_INVALID', { reason });
}

interface Found {
  invocation: Invocation | undefined;
  printed: string;
}

function build(found: Found): Command {
  const quiet = (command: Command): Command =>
    command
      .exitOverride()
      .allowExcessArguments(false)
      .showSuggestionAfterError(true)
      .configureOutput({
        writeOut: (text) => {
          found.printed += text;
        },
        writeErr: (text) => {
          found.printed += text;
        },
        outputError: () => {},
      });
  const program = quiet(new Command('helixflow'))
    .description('GPUs that different people own, as one OpenAI-compatible service, without a centre.')
    .version(version, '--version')
    .enablePositionalOptions();
  const parents = new Map(
    Object.entries(groups).map(([name, about]) => [name, quiet(program.command(name)).description(about)]),
  );
  for (const entry of commands) {
    const [first = '', second] = words(entry.path);
    const parent = second === undefined ? program : (parents.get(first) ?? program);
    const command = quiet(parent.command(second ?? first)).description(entry.about);
    // `helixflow node` runs by itself, and `helixflow node drain` is another command.
    if (second === undefined) parents.set(first, command.enablePositionalOptions());
    addOptions(command, { ...entry.table, ...commonOptions });
    command.action(() => {
      found.invocation = {
        kind: 'run',
        command: entry,
        flags: { ...commonFlags(parent), ...command.opts(), ...argumentsOf(command, entry.table) },
      };
    });
  }
  return program;
}

/**
 * Reads the arguments after `helixflow`. Values are not looked at here.
 * @throws HelixFlowError CONFIG_INVALID for an unknown command or flag, and for a flag without its value.
 */
export function parseArguments(argv: readonly string[]): Invocation {
  const found: Found = { invocation: undefined, printed: '' };
  try {
    build(found).parse(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: 'print', text: found.printed.trimEnd() };
    const isHelp = error.code === 'commander.help';
    const reason = isHelp
      ? `a command is missing after helixflow ${argv.map(redactValue).join(' ')}`.trim()
      : reasonOf(error);
    throw new HelixFlowError('CONFIG_INVALID', { reason }, { cause: error });
  }
  return found.invocation ?? { kind: 'print', text: found.printed.trimEnd() };
}
