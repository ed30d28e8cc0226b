/** The story of a request for people: nodes, then what happened line by line, with every choice as a table. */

import type { AttemptPurpose, Trace, TraceStep } from '../gateway/route/trace.ts';
import { columns, counted, isoOf, moment } from './lists.ts';

/** As `--json` has it. */
export const whyValue = ({ startMs, ...trace }: Trace): object => ({ ...trace, started: isoOf(startMs) });

/** Short names for nodes, in the order of the story: ids are too long for a table. */
function namesOf(steps: readonly TraceStep[]): Map<string, string> {
  const names = new Map<string, string>();
  const note = (peer: string | undefined): void => {
    if (peer !== undefined && !names.has(peer)) names.set(peer, `n${names.size + 1}`);
  };
  for (const step of steps) {
    if (step.kind === 'choice') {
      note(step.chosen);
      for (const { peer } of [...step.candidates, ...step.refusals]) note(peer);
    } else if ('node' in step) {
      note(step.node);
    }
  }
  return names;
}

type Named = (peer: string) => string;
type StepOf<Kind extends TraceStep['kind']> = Extract<TraceStep, { readonly kind: Kind }>;

const purposes: Readonly<Record<AttemptPurpose, string>> = {
  first: 'the first attempt',
  retry: 'another attempt',
  splice: 'going on with the answer',
  restart: 'beginning again, unseen',
  hedge: 'a second attempt beside the first',
};

const stopped: Readonly<Record<StepOf<'cancelled'>['why'], string>> = {
  'hedge-lost': 'the other attempt was sooner',
  client: 'its client left',
  stalled: 'it produced nothing',
  deadline: 'the deadline of the request passed',
  budget: 'its account has no more money',
  key: 'its key was taken back',
};

/** JSON has no word for what takes for ever. */
function rounded(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return '∞';
  return String(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}

const head = ['', 'NODE', 'TOTAL', 'FIRST', 'WAIT', 'PREFILL', 'TRIP', 'OVERHEAD', 'CACHED', 'ACTIVE', 'QUEUED'];

/** Milliseconds that were expected, part by part, and why the others were passed over. */
function choiceTable({ chosen, candidates, refusals }: StepOf<'choice'>, named: Named): string {
  const rows = candidates.map(({ peer, score, cachedBytes, active, queued }) => [
    peer === chosen ? '→' : '',
    named(peer),
    ...[score.totalMs, score.firstMs, score.waitMs, score.prefillMs, score.roundTripMs, score.overheadMs].map(rounded),
    `${cachedBytes} B`,
    String(active),
    String(queued),
  ]);
  return columns(head, [...rows, ...refusals.map(({ peer, reason }) => ['', named(peer), reason])]);
}

function choiceText(step: StepOf<'choice'>, named: Named): string {
  const { purpose, chosen, reason, candidates, refusals, groupSize } = step;
  const unseen = groupSize - candidates.length - refusals.length;
  const others = unseen > 0 ? `, ${unseen} more not looked at` : '';
  const what = chosen === undefined ? 'no node' : `${named(chosen)} (${reason})`;
  const line = `for ${purposes[purpose]}: ${what}, of ${counted(groupSize, 'node')}${others}`;
  if (candidates.length + refusals.length === 0) return line;
  const table = choiceTable(step, named);
  return [line, ...table.split('\n').map((row) => `            ${row}`)].join('\n');
}

function stepText(step: TraceStep, named: Named): string {
  switch (step.kind) {
    case 'choice':
      return choiceText(step, named);
    case 'waits':
      return `no node has a place: it waits, behind ${step.ahead}`;
    case 'attempt':
      return `${named(step.node)} is asked: ${purposes[step.purpose]}`;
    case 'content':
      return `${named(step.node)} sends its first content`;
    case 'failed':
      return `${named(step.node)} fails after ${counted(step.tokens, 'token')}: ${step.code}`;
    case 'cancelled': {
      const settled = step.settledMs === undefined ? '' : `; its slot was free after ${rounded(step.settledMs)} ms`;
      return `${named(step.node)} is stopped: ${stopped[step.why]}${settled}`;
    }
    case 'done':
      return `${named(step.node)} is done after ${counted(step.tokens, 'token')}`;
    case 'ended':
      return `the request ends with ${step.code}`;
  }
}

/** All of it; times are milliseconds from the arrival of the request. */
export function whyText({ request, model, digest, startMs, steps, dropped }: Trace): string {
  const names = namesOf(steps);
  const named: Named = (peer) => names.get(peer) ?? peer;
  const lines = steps.map((step) => `${`+${Math.round(step.atMs)} ms`.padStart(10)}  ${stepText(step, named)}`);
  if (dropped.count > 0) lines.splice(dropped.after, 0, `         …  ${counted(dropped.count, 'step')} not kept`);
  return [
    `request   ${request}`,
    `model     ${model}${digest === undefined ? '' : ` (${digest.slice(0, 8)})`}`,
    `came      ${moment(startMs)}`,
    ...[...names].map(([peer, name]) => `${name.padEnd(8)}  ${peer}`),
    '',
    ...lines,
  ].join('\n');
}
