/** The rows of statements: how they are written, bounded and read. */

import type { Value } from '../protocol/codec.ts';
import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Reader } from '../protocol/reader.ts';
import { bytesOf, inBounds, LineReader, LineWriter, lineTokensMax, tableMax } from './line.ts';
import type { Progress, StatementEntry } from './statement.ts';

/** Running attempts of which one statement says how far they have come; `tableMax` are told for the first time. */
export const progressMax = 1_024;

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `statement: ${reason}` });

/** Serials grow, so each is written as what it has more than the one before. */
function writeProgress(progress: readonly Progress[]): Value {
  let before = 0;
  return progress.flatMap(({ serial, completionTokens }) => {
    const more = inBounds(serial, Number.MAX_SAFE_INTEGER, before + 1) - before;
    before = serial;
    return [more, inBounds(completionTokens, lineTokensMax)];
  });
}

/** What follows the kind. @throws HelixFlowError FRAME_MALFORMED for what `readStatement` would not take. */
export function writeStatement(entry: StatementEntry): readonly Value[] {
  const { node, number, previous, run, lines, running, progress, totals } = entry;
  if (lines.length > limits.statementLinesMax || running.length > tableMax || progress.length > progressMax) {
    throw malformed('more than one statement holds');
  }
  checkRunning(entry);
  const writer = new LineWriter();
  const rows = lines.map((line) => writer.write(line));
  const runningRows = running.map((line) => writer.write(line));
  writer.take(run, progress);
  if (previous.length !== 32) throw malformed('no hash');
  const sums = [totals.lines, totals.promptTokens, totals.completionTokens];
  return [
    node,
    inBounds(number, Number.MAX_SAFE_INTEGER),
    previous,
    bytesOf(run, 16),
    writer.tables(),
    rows,
    runningRows,
    writeProgress(progress),
    sums.map((sum) => inBounds(sum, Number.MAX_SAFE_INTEGER)),
  ];
}

function checkRunning({ lines, running, run }: Pick<StatementEntry, 'lines' | 'running' | 'run'>): void {
  if (lines.some(({ outcome }) => outcome === 'running')) throw malformed('a running line among the ended');
  if (running.some((line) => line.outcome !== 'running' || line.run !== run)) throw malformed('not running');
}

/** Reads what follows the node. @throws HelixFlowError FRAME_MALFORMED */
export function readStatement(r: Reader): Omit<StatementEntry, 'kind' | 'node'> {
  const number = r.int();
  const previous = r.bytes(32, 32);
  const run = toHex(r.bytes(16, 16)) as ProcessId;
  const reader = new LineReader(r.row());
  const lines = r.list(limits.statementLinesMax, (value) => reader.read(value));
  const running = r.list(tableMax, (value) => reader.read(value));
  checkRunning({ lines, running, run });
  const progress = readProgress(r.ints(2 * progressMax));
  reader.take(run, progress);
  const row = r.row();
  const totals = { lines: row.int(), promptTokens: row.int(), completionTokens: row.int() };
  return { number, previous, run, lines, running, progress, totals };
}

function readProgress(numbers: readonly number[]): Progress[] {
  const progress: Progress[] = [];
  let serial = 0;
  for (let at = 0; at < numbers.length; at += 2) {
    const more = numbers[at] ?? 0;
    const completionTokens = numbers[at + 1] ?? lineTokensMax + 1;
    serial += more;
    if (more < 1 || !Number.isSafeInteger(serial) || completionTokens > lineTokensMax) throw malformed('no progress');
    progress.push({ serial, completionTokens });
  }
  return progress;
}
