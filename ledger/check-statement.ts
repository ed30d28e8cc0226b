/** What a node says to a statement: line by line against its own record of the work, as a pure rule (design §6 "Counting"). */

import { type Counted, deliveredTokens, promptTokensOf, wholeTokens } from '../protocol/counting.ts';
import type { ModelDigest, PriceId, ProcessId, RequestId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { attemptName, type LineOutcome, type UsageLine } from './line.ts';
import type { RefusalReason, RefusedLine, StatementEntry } from './statement.ts';
import type { WorkEnd } from './work.ts';

/** What a node has of an attempt. */
export interface OwnWork {
  readonly run: ProcessId;
  readonly serial: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  /** Named by the gateway when it opened the attempt. */
  readonly price: PriceId | '';
  readonly bodyBytes: number;
  readonly sent: Counted;
  /** Of that, what the gateway has said to hold. */
  readonly acknowledgedTokens: number;
  /** The highest count of a statement that told of it as running; -1 before. */
  readonly statedTokens: number;
  /** Undefined while it runs. */
  readonly end: WorkEnd | undefined;
}

/** What a statement is held against. */
export interface OwnRecords {
  /** Work that no statement covers yet. */
  workOf(line: Pick<UsageLine, 'run' | 'serial'>): OwnWork | undefined;
  /** A statement has covered it before. */
  wasCovered(line: Pick<UsageLine, 'run' | 'serial'>): boolean;
  /** An earlier process of this node may have done the work, and forgotten it in its crash. */
  mayBeForgotten(line: Pick<UsageLine, 'run' | 'serial' | 'startMs'>): boolean;
  /** Whether the line's price is one that counted at its start. */
  isPriceRight(line: UsageLine): boolean;
  /** Tokens that the gateway may still leave out of attempts that it ended while pieces of them were on their way. */
  readonly toleranceTokens: number;
}

/** An own record that a line covers. */
export interface CoveredWork {
  readonly work: OwnWork;
  readonly line: UsageLine;
  /** Tokens that were sent, and are not paid. */
  readonly shortTokens: number;
}

/** A running attempt of which the statement tells. */
export interface ToldWork {
  readonly work: OwnWork;
  readonly completionTokens: number;
}

/** The node's word, and what follows from it. */
export interface CheckedStatement {
  readonly refused: readonly RefusedLine[];
  readonly covered: readonly CoveredWork[];
  /** Own records whose line was refused: they stay uncovered. */
  readonly disputed: readonly (RefusedLine & { readonly work: OwnWork })[];
  /** Lines that are right, or of work that was forgotten here; they count as covered from now on. */
  readonly seen: readonly UsageLine[];
  readonly told: readonly ToldWork[];
}

type Verdict = { readonly reason: RefusalReason } | { readonly shortTokens: number };

const refuse = (reason: RefusalReason): Verdict => ({ reason });

const isSameWork = (line: UsageLine, work: OwnWork): boolean =>
  line.request === work.request && line.model === work.model && line.digest === work.digest;

const hasTokens = ({ promptTokens, completionTokens }: UsageLine): boolean => promptTokens + completionTokens > 0;

/** What an attempt of the node's own comes to at most, in completion tokens. */
export const ownTokens = ({ sent, end }: Pick<OwnWork, 'sent' | 'end'>): number =>
  end?.kind === 'done' ? wholeTokens(end.completionTokens, sent) : deliveredTokens(sent);

/** What the node has told of the prompt, as far as it may be charged. */
export const ownPromptTokens = ({ end, bodyBytes }: Pick<OwnWork, 'bodyBytes' | 'end'>): number =>
  end === undefined || end.kind === 'failed' ? 0 : promptTokensOf(end.promptTokens, bodyBytes);

/**
 * The answer was whole on both sides: nothing was on its way, so that all counts are the same; but money may have
 * reached for the tokens that were seen, and no further.
 */
function judgeWhole(line: UsageLine, work: OwnWork, cachedTokens: number): Verdict {
  const whole = ownTokens(work);
  const prompt = ownPromptTokens(work);
  const isSame =
    line.completionTokens <= whole &&
    line.completionTokens >= Math.min(whole, deliveredTokens(work.sent)) &&
    (line.nodeTokens ?? whole) >= whole &&
    line.promptTokens === prompt &&
    line.cachedTokens === Math.min(cachedTokens, prompt);
  return isSame ? { shortTokens: whole - line.completionTokens } : refuse('count');
}

/** Outcomes for whose prompt the node is paid (design §6 "Settlement"). */
const paysPrompt = (outcome: LineOutcome): boolean => outcome === 'done' || outcome === 'cancelled';

/** The least that may be stated of an attempt of which the gateway let go: what it had said to hold. */
function leastTokens(outcome: LineOutcome, { acknowledgedTokens, statedTokens }: OwnWork): number {
  // A budget ends within the piece that it does not reach; the piece has come.
  const beyondTokens = outcome === 'cancelled' ? limits.deltaTokensMax : 0;
  return Math.max(acknowledgedTokens - beyondTokens, statedTokens);
}

/** The gateway let go of the attempt, or lost it, while pieces of it were on their way. */
function judgeLetGo(line: UsageLine, work: OwnWork): Verdict {
  const { end, bodyBytes, statedTokens } = work;
  const most = ownTokens(work);
  // As settlement takes it: of two counts the lower one.
  const counted = Math.min(line.nodeTokens ?? line.completionTokens, line.completionTokens);
  const isTooLow = counted < Math.min(most, leastTokens(line.outcome, work));
  // Without the node's word the gateway counts what came, be it more than the node makes of it.
  if (isTooLow || line.completionTokens > Math.max(most, deliveredTokens(work.sent), statedTokens))
    return refuse('count');
  const short = Math.max(0, most - counted);
  const prompt = ownPromptTokens(work);
  // The prompt was earned here; how the attempt ended there is the gateway's word alone.
  if (!paysPrompt(line.outcome)) return { shortTokens: short + prompt };
  const cachedTokens = end?.kind === 'done' ? Math.min(end.cachedTokens, prompt) : 0;
  // Where the node had not counted it, or was not heard, the gateway guesses.
  if (line.promptTokens > bodyBytes || line.cachedTokens > cachedTokens) return refuse('count');
  return { shortTokens: short + Math.max(0, prompt - line.promptTokens) };
}

function judge(line: UsageLine, work: OwnWork): Verdict {
  if (!isSameWork(line, work)) return refuse('unknown');
  if (line.price.id !== work.price) return refuse('price');
  if (line.outcome !== 'done') return judgeLetGo(line, work);
  return work.end?.kind === 'done' ? judgeWhole(line, work, work.end.cachedTokens) : refuse('outcome');
}

/** Of a line without a record: nothing is said against one that costs nothing, as of an attempt that never came here. */
function judgeUnknown(line: UsageLine, records: OwnRecords): Verdict {
  return !hasTokens(line) || records.mayBeForgotten(line) ? { shortTokens: 0 } : refuse('unknown');
}

function judgeAny(line: UsageLine, records: OwnRecords): Verdict {
  if (records.wasCovered(line)) return refuse('repeated');
  const work = records.workOf(line);
  const verdict = work === undefined ? judgeUnknown(line, records) : judge(line, work);
  if ('reason' in verdict || !hasTokens(line) || records.isPriceRight(line)) return verdict;
  return refuse('price');
}

/** Those of the running attempts that this node has, at a price that is right. */
function toldOf(statement: StatementEntry, records: OwnRecords): ToldWork[] {
  const told: ToldWork[] = [];
  for (const line of statement.running) {
    const work = records.workOf(line);
    if (work === undefined || !isSameWork(line, work) || line.price.id !== work.price) continue;
    if (records.isPriceRight(line)) told.push({ work, completionTokens: line.completionTokens });
  }
  for (const { serial, completionTokens } of statement.progress) {
    const work = records.workOf({ run: statement.run, serial });
    // Only a row tells at which price an attempt runs.
    if (work !== undefined && (work.statedTokens >= 0 || told.some((row) => row.work === work))) {
      told.push({ work, completionTokens });
    }
  }
  return told;
}

/** Judges every line of a statement whose place and signature are right. */
export function checkStatement(statement: StatementEntry, records: OwnRecords): CheckedStatement {
  const refused: RefusedLine[] = [];
  const covered: CoveredWork[] = [];
  const disputed: (RefusedLine & { readonly work: OwnWork })[] = [];
  const seen: UsageLine[] = [];
  const names = new Set<string>();
  let toleranceTokens = records.toleranceTokens;
  for (const [index, line] of statement.lines.entries()) {
    const name = attemptName(line);
    let verdict = names.has(name) ? refuse('repeated') : judgeAny(line, records);
    if ('shortTokens' in verdict && verdict.shortTokens > toleranceTokens) verdict = refuse('count');
    const work = names.has(name) ? undefined : records.workOf(line);
    if ('reason' in verdict) {
      refused.push({ index, reason: verdict.reason });
      if (work !== undefined) disputed.push({ index, reason: verdict.reason, work });
      continue;
    }
    names.add(name);
    toleranceTokens -= verdict.shortTokens;
    seen.push(line);
    if (work !== undefined) covered.push({ work, line, shortTokens: verdict.shortTokens });
  }
  return { refused, covered, disputed, seen, told: toldOf(statement, records) };
}
