/** Commands run in the test's own process: the same parsing and code, without the half second that a process takes. */

import { parseArguments } from '../../cli/program.ts';
import { errorRow, isHelixFlowError } from '../../protocol/errors.ts';

export interface Ran {
  readonly code: number;
  /** What `--json` prints. */
  readonly value: Record<string, unknown>;
  /** Of the error that ended it. */
  readonly error: string | undefined;
}

/** Runs a command with `--json`; nobody is at a terminal, and stdin is empty. */
export async function runHere(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
  let value: Record<string, unknown> = {};
  try {
    const invocation = parseArguments([...args, '--json']);
    if (invocation.kind === 'print') throw new Error(`no command: ${args.join(' ')}`);
    const { command, flags } = invocation;
    const code = await command.run({ flags, env, file: undefined }, (common) => ({
      common,
      output: {
        json: true,
        data: (shown) => {
          value = JSON.parse(JSON.stringify(shown)) as Record<string, unknown>;
        },
        note: () => {},
      },
      readLine: () => Promise.resolve(''),
      readSecret: () => Promise.resolve(undefined),
    }));
    return { code, value, error: undefined };
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return { code: errorRow(error.code).exit, value, error: error.code };
  }
}
