/** `helixflow sim run`: a scenario under virtual time, decided by one seed. */

import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Times } from '../../sim/bans.ts';
import { renderReport } from '../../sim/report.ts';
import { playScenario, type SimResult } from '../../sim/run.ts';
import { findScenario } from '../../sim/scenario.ts';
import type { RunCommand } from '../command.ts';
import type { simRunOptions } from '../config/tables.ts';
import { writeFileAtomic } from '../files.ts';
import { printable } from '../output.ts';

const printTimes = ({ measured, p50Ms, p99Ms, maxMs }: Times): string =>
  `${p50Ms} ms (p50), ${p99Ms} ms (p99), ${maxMs} ms (max of ${measured})`;

function printTrust({ trust }: Pick<SimResult, 'trust'>): string[] {
  if (trust === undefined) return [];
  const { revoked, bans, forkProvenMs } = trust;
  const fork = forkProvenMs === undefined ? '' : `; a fork was proven everywhere after ${forkProvenMs} ms`;
  return [
    `keys        ${revoked} revoked; known after ${printTimes(trust)}${fork}`,
    `members     ${bans.banned} banned; known after ${printTimes(bans.known)}; connections closed after ${printTimes(bans.cutOff)}`,
  ];
}

function printMoney({ money }: Pick<SimResult, 'money'>): string[] {
  if (money === undefined) return [];
  const { lines, statements, waiting, claims, lost, accountMicro, gatewayMicro } = money;
  const { poorSpentMicro, poorBudgetMicro, gains, stopped, forkProvenMs, limits } = money;
  const share = ((100 * poorSpentMicro) / Math.max(1, poorBudgetMicro)).toFixed(1);
  return [
    `lines       ${lines} in ${statements} statements, ${waiting} of them not countersigned; ${claims} claims; ${lost} lines gone with a disk that nobody else had`,
    `money       accounts owe ${accountMicro} micro-credits, gateways themselves ${gatewayMicro}`,
    ...(poorBudgetMicro === 0 ? [] : [`budgets     strict ones of ${poorBudgetMicro} were spent up to ${share} %`]),
    ...(limits === undefined
      ? []
      : [
          `limits      of one key at all gateways: at most ${limits.rpm} a minute, ${limits.rpmAfterRestarts} where a gateway started again, ${limits.concurrency} at a time`,
        ]),
    ...gains.map(({ lie, micro, windowMicro }) => {
      const windows = (micro / Math.max(1, windowMicro)).toFixed(2);
      return `gain        by '${lie}' at most ${micro} micro-credits from one member: ${windows} windows`;
    }),
    ...(gains.length === 0 ? [] : [`liars       ${stopped} times a node serves a gateway no more`]),
    ...(forkProvenMs === undefined ? [] : [`fork        proven everywhere ${forkProvenMs} ms after the halves met`]),
  ];
}

function printResult({ requests, faults, violations, ...result }: SimResult): string {
  const list = (counts: object): string =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${typeof count === 'object' ? `(${list(count)})` : count}`)
      .join(', ') || 'none';
  return [
    `scenario    ${result.scenario}, seed ${result.seed}`,
    `events      ${result.events} (${result.eventsPerSecond} per second of real time)`,
    `time        ${result.virtualSeconds} virtual seconds`,
    `trace hash  ${result.traceHash}`,
    `faults      ${list(faults)}`,
    `requests    ${list(requests)}`,
    ...printTrust(result),
    ...printMoney(result),
    `violations  ${violations.length === 0 ? 'none' : violations.length}`,
    ...violations.map(({ atMs, check, detail }) => printable(`  ${(atMs / 1_000).toFixed(3)} s  ${check}: ${detail}`)),
  ].join('\n');
}

async function writeReport(path: string, html: string): Promise<void> {
  try {
    await writeFileAtomic(path, html);
  } catch (cause) {
    if (!isHelixFlowError(cause, 'DATA_DIR_UNUSABLE')) throw cause;
    const reason = `--report ${path}: cannot be written: ${cause.details.reason}`;
    throw new HelixFlowError('CONFIG_INVALID', { reason }, { cause });
  }
}

export const runSim: RunCommand<typeof simRunOptions> = async ({ seed, scenario: name, report }, { output }) => {
  const scenario = findScenario(name);
  assert(scenario !== undefined, 'every name has its scenario');
  output.note(`${scenario.name}: ${scenario.about}`);
  // Inside the run a rejection that nobody handles is a violation, not the end of this process.
  process.removeAllListeners('unhandledRejection');
  const played = await playScenario(scenario, { seed });
  const { result } = played;
  if (report !== undefined) await writeReport(report, renderReport(played));
  output.data(result, printResult(result));
  const count = result.violations.length;
  if (count === 0) return 0;
  const again = `helixflow sim run --scenario ${scenario.name} --seed ${seed}`;
  throw new HelixFlowError('CHECK_FAILED', { reason: `${count} violations; ${again} shows them again` });
};
