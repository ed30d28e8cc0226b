/** The CLI from arguments to exit code: the one place that reads the environment and catches everything. */

import { errorRow, HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { createOutput, printError, printFault } from './output.ts';
import { commandIn, parseArguments } from './program.ts';
import { askUnseen } from './terminal.ts';

/** The one reading of the environment; values are passed down from here. */
const env: Readonly<Record<string, string | undefined>> = { ...process.env };

const stdinTooLong = (maxBytes: number): HelixFlowError =>
  new HelixFlowError('CONFIG_INVALID', { reason: `stdin holds more than ${maxBytes} bytes` });

/** Reads up to the first line end, so that a token can be pasted. */
async function readLine(maxBytes: number): Promise<string> {
  let text = '';
  if (process.stdin.isTTY) process.stderr.write('Paste the token and press Enter:\n');
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text += chunk;
    const end = text.search(/\S[^\n]*\n/);
    if (end >= 0) break;
    if (text.length > maxBytes) throw stdinTooLong(maxBytes);
  }
  return text.trim().split('\n')[0] ?? '';
}

/** Whether errors are told as JSON; asked before the arguments are known to be good. */
function wantsJson(argv: readonly string[]): boolean {
  const { HELIXFLOW_JSON } = env;
  return argv.includes('--json') || ['1', 'true', 'yes'].includes(HELIXFLOW_JSON?.toLowerCase() ?? '');
}

async function run(argv: readonly string[]): Promise<number> {
  const invocation = parseArguments(argv);
  if (invocation.kind === 'print') {
    createOutput(false).data(undefined, invocation.text);
    return 0;
  }
  const { command, flags } = invocation;
  const { HELIXFLOW_CONFIG } = env;
  const file = typeof flags['config'] === 'string' ? flags['config'] : HELIXFLOW_CONFIG || undefined;
  return await command.run({ flags, env, file }, (common) => ({
    common,
    output: createOutput(common.json),
    readLine,
    readSecret: (question) => askUnseen(process.stdin, process.stderr, question),
  }));
}

/** Tells of whatever went wrong; the result is the exit code. */
function report(error: unknown, json: boolean, command: string | undefined): number {
  if (isHelixFlowError(error)) {
    printError(error, json, command);
    return errorRow(error.code).exit;
  }
  printFault(error, json);
  return 1;
}

/** Runs the command line and ends the process with its exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  const json = wantsJson(argv);
  const command = commandIn(argv);
  const fault = (error: unknown): void => process.exit(report(error, json, command));
  process.on('uncaughtException', fault);
  process.on('unhandledRejection', fault);
  try {
    process.exitCode = await run(argv);
  } catch (error) {
    process.exitCode = report(error, json, command);
  }
  process.exit();
}
