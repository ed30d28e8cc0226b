/** The CLI as a child process, as people start it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export const entry = fileURLToPath(new URL('../../cli/helixflow.mjs', import.meta.url));

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  /** The Node that starts the entry. */
  readonly node?: string;
}

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command; killed with the test if it still runs. */
export interface RunningCli extends AsyncDisposable {
  readonly child: ChildProcess;
  /** Resolves when the process and its streams have ended. */
  readonly ended: Promise<CliResult>;
  /** The first line on stdout, as JSON; rejects when the process ends without one. */
  ready(): Promise<Record<string, unknown>>;
  /** Everything on stdout so far. */
  stdout(): string;
  stderr(): string;
}

/** Nothing of the tester's own settings reaches the command. */
const cleanEnv = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value === undefined || name.startsWith('HELIXFLOW_') ? [] : [[name, value]],
    ),
  );

export function startCli(args: readonly string[], options: CliOptions = {}): RunningCli {
  const child = spawn(options.node ?? process.execPath, [entry, ...args], {
    env: { ...cleanEnv(), ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.on('error', () => {});
  child.stdin.end(options.stdin ?? '');
  let stdout = '';
  let stderr = '';
  const { promise: firstLine, resolve, reject } = Promise.withResolvers<string>();
  firstLine.catch(() => {});
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (stdout.includes('\n')) resolve(stdout.slice(0, stdout.indexOf('\n')));
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'close').then(([code]) => {
    reject(new Error(`ended with ${code} before it was ready: ${stderr}`));
    return { code: code as number | null, stdout, stderr };
  });
  return {
    child,
    ended,
    ready: async () => JSON.parse(await firstLine),
    stdout: () => stdout,
    stderr: () => stderr,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Runs a command to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  await using running = startCli(args, options);
  return await running.ended;
}

/** The one JSON line of `stdout`. */
export function jsonLine(text: string): Record<string, unknown> {
  const lines = text.split('\n').filter((line) => line !== '');
  if (lines.length !== 1) throw new Error(`expected one line, got ${lines.length}: ${text}`);
  return JSON.parse(lines[0] ?? '');
}
