/** What the CLI prints: data on stdout, everything else on stderr, one JSON line each where that was asked for. */

import { writeSync } from 'node:fs';
import type { ErrorRow } from '../protocol/error-table.ts';
import { type ErrorDetails, errorRow, errorText, HelixFlowError } from '../protocol/errors.ts';
import { systemCode, systemReason } from './files.ts';
import { redact } from './redact.ts';

/** @returns what to throw when output cannot be written, of which a caller that reports errors makes one line. */
export const unwritable = (cause: unknown): HelixFlowError =>
  new HelixFlowError('OUTPUT_FAILED', { reason: systemReason(cause) }, { cause });

/** Writes all of `text` before it returns, so that nothing is lost when the process exits next. */
function write(descriptor: 1 | 2, text: string): void {
  const bytes = Buffer.from(text);
  let written = 0;
  while (written < bytes.length) {
    try {
      written += writeSync(descriptor, bytes, written);
    } catch (error) {
      const code = systemCode(error);
      // The reader has gone: there is nobody to tell.
      if (code === 'EPIPE') return;
      // Where nobody can be told anything, the exit code has to do.
      if (code !== 'EAGAIN' && descriptor === 2) return;
      if (code !== 'EAGAIN') throw unwritable(error);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** One line that cannot steer a terminal, whoever wrote parts of it. */
export const printable = (line: string): string => line.replaceAll(/\p{C}/gu, '?');
const printableLines = (text: string): string => text.split('\n').map(printable).join('\n');

export interface Output {
  readonly json: boolean;
  /** The command's result: `value` as one JSON line, or `text` for people. */
  data(value: unknown, text: string): void;
  /** A remark for people on stderr; nothing in JSON mode. */
  note(text: string): void;
}

export const createOutput = (json: boolean): Output => ({
  json,
  data: (value, text) => write(1, `${json ? JSON.stringify(value) : printableLines(text)}\n`),
  note: (text) => {
    if (!json) write(2, `${text}\n`);
  },
});

/** What to do when the error's own sentence does not say. */
const adviceByExit: Readonly<Record<ErrorRow['exit'], string>> = {
  1: 'the log lines above say more; --log-level debug shows the rest',
  2: 'helixflow --help lists the commands, helixflow <command> --help their options',
  3: 'check the name',
  4: 'ask the operator of the mesh for a new token',
  5: 'helixflow status shows what runs; try again',
  6: 'read the findings above',
};

/** Sentences that name only a reason get a subject. */
const subjects: Readonly<Record<string, string>> = {
  CONFIG_INVALID: 'the command cannot be run as it was given',
  CHECK_FAILED: 'the check found something',
};

/** Where the ids of each kind of subject are found. */
const lists: Readonly<Record<string, string>> = {
  key: 'helixflow keys ls lists the ids',
  account: 'helixflow accounts ls lists the ids',
  record: 'run it at a gateway of the mesh',
  'ban of': 'helixflow mesh members lists the peers, with those that are banned',
  'fork of author': 'helixflow status names the authors that have forked',
};

/** What helps whoever was refused by what a command asked for, not by how. */
const refusals: Readonly<Record<string, string>> = {
  'keys rotate':
    'helixflow keys create makes a new key; helixflow keys set <key> --expires moves the end of one that has expired',
  'mesh ban': 'helixflow mesh leave takes this machine out of the mesh; helixflow mesh members lists the other peers',
};
const refusedCodes: ReadonlySet<string> = new Set(['REQUEST_MALFORMED', 'REQUEST_UNSUPPORTED']);

/** @param command The words of the command line that name a command, such as `keys set`. */
function adviceFor({ code, details }: HelixFlowError, command: string | undefined): string {
  const { kind } = details as Readonly<Record<string, unknown>>;
  const list = typeof kind === 'string' ? lists[kind] : undefined;
  if (list !== undefined) return list;
  if (code === 'CHECK_FAILED' && command === 'ledger verify') {
    return 'what is damaged or missing comes back from peers when the gateway starts, or with helixflow ledger restore';
  }
  if (command !== undefined && (code === 'CONFIG_INVALID' || refusedCodes.has(code))) {
    const refusal = refusedCodes.has(code) ? refusals[command] : undefined;
    return refusal ?? `helixflow ${command} --help says how it is used`;
  }
  return adviceByExit[errorRow(code).exit];
}

/** What an error tells beside its code, without the secrets that somebody gave in a wrong place. */
const tellable = (details: object): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(details).map(([name, value]) => [name, typeof value === 'string' ? redact(value) : value]),
  );

/** An error in three short lines: what happened, why, what to do. @param command As the command line names it. */
export function describeError(error: HelixFlowError, command?: string): string {
  const row = errorRow(error.code);
  const values = tellable(error.details);
  const fill = (template: string): string =>
    template.replace(/\{(\w+)\}/g, (_, name: string) =>
      String(values[name] ?? '?')
        .split('\n')
        .map(printable)
        .join('\n'),
    );
  const [claim = '', ...advice] = row.text.split('; ');
  const subject = subjects[error.code];
  const colon = subject === undefined ? claim.indexOf(': ') : -1;
  const what = subject ?? (colon < 0 ? claim : claim.slice(0, colon));
  const why = subject === undefined ? (colon < 0 ? '' : claim.slice(colon + 2)) : claim;
  return [
    `helixflow: ${fill(what).replace(/\.$/, '')} (${error.code})`,
    ...(why === '' ? [] : [`  why: ${fill(why).replaceAll('\n', '\n       ')}`]),
    `  do:  ${advice.length > 0 ? fill(advice.join('; ')) : adviceFor(error, command)}`,
  ].join('\n');
}

/** Tells of an error that ends the process. */
export function printError(error: HelixFlowError, json: boolean, command?: string): void {
  const { code } = error;
  const details = tellable(error.details) as ErrorDetails[typeof code];
  const line = { event: 'error', code, message: errorText(code, details), details, exit: errorRow(code).exit };
  write(2, `${json ? JSON.stringify(line) : describeError(error, command)}\n`);
}

/** Tells of a fault in our own code: it has no code, only a stack. */
export function printFault(error: unknown, json: boolean): void {
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const message = 'helixflow failed by a fault of its own; please report the lines below';
  write(
    2,
    json
      ? `${JSON.stringify({ event: 'error', code: 'INTERNAL', message, exit: 1, stack })}\n`
      : `helixflow: ${message}\n${stack}\n`,
  );
}
