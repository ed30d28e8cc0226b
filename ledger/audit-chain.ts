/** Lines of the audit log, how each holds on to the one before it, and where a writer goes on. */

import { z } from 'zod';
import { sha256Hex } from '../protocol/crypto.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { AuditAction, AuditLine, AuditRecord } from './audit.ts';

/** A line by number and hash: whoever knows it knows all lines before it. */
export interface Anchor {
  /** -1 stands for no line at all. */
  readonly number: number;
  /** Hex sha256 of the line. */
  readonly hash: string;
}

/** What is kept beside the lines, so that lines missing at either end are noticed. */
export interface AuditHead {
  /** The oldest line that is kept, and what it holds on to. */
  readonly first: { readonly number: number; readonly previous: string };
  /** A line that is on disk for certain; a few more may follow it. */
  readonly last: Anchor;
}

/** What stands before the first line. */
const zeros = '0'.repeat(64);
/** No line can be longer. */
export const lineMaxChars = 1_024;
/** What this version writes, and the newest it can read. */
export const auditFormat = 1;

/** The head of a log that has no lines. */
export const emptyHead: AuditHead = { first: { number: 0, previous: zeros }, last: { number: -1, hash: zeros } };

/** One JSON line without its end, its members in a fixed order. */
export function lineOf(record: AuditRecord, number: number, time: UnixMs, previous: string): string {
  const { action, actor, object, outcome, reason, count } = record;
  return JSON.stringify({ number, time, action, actor, object, outcome, reason, count, previous });
}

/** What the next line holds on to. */
export const hashLine = (text: string): string => sha256Hex(text);

const integer = z.int().min(0);
const hash = z.string().regex(/^[0-9a-f]{64}$/);
const lineShape = z.object({
  number: integer,
  time: integer.transform(unixMs),
  // Not the closed list: an older version reads a newer one's lines.
  action: z.custom<AuditAction>((value) => typeof value === 'string'),
  actor: z.string(),
  object: z.string(),
  outcome: z.enum(['done', 'refused', 'failed']),
  reason: z.string(),
  count: z.int().min(2).optional(),
  previous: hash,
});
const headShape = z.object({
  first: z.object({ number: integer, previous: hash }),
  last: z.object({ number: z.int().min(-1), hash }),
});
const formatShape = z.object({ format: z.int().min(1) });

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const ascii = /^[\x20-\x7e]*$/;

/** Reads a line; undefined unless it is one to the letter. */
export function parseLine(text: string): AuditLine | undefined {
  if (text.length > lineMaxChars || !ascii.test(text)) return undefined;
  const parsed = lineShape.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const { count, ...rest } = parsed.data;
  const line: AuditLine = { ...rest, ...(count === undefined ? {} : { count }) };
  return lineOf(line, line.number, line.time, line.previous) === text ? line : undefined;
}

/** The text of the head's file. */
export const printHead = ({ first, last }: AuditHead): string =>
  `${JSON.stringify({ format: auditFormat, first, last })}\n`;

/** Reads the head's file; a number is the format of one that only a newer version can read. */
export function parseHead(text: string): AuditHead | number | undefined {
  const value = parseJson(text);
  const format = formatShape.safeParse(value);
  if (!format.success) return undefined;
  if (format.data.format > auditFormat) return format.data.format;
  const head = headShape.safeParse(value);
  return head.success ? head.data : undefined;
}

/** Where to go on in a file, and what was found there. */
export interface Resume {
  /** Characters to keep; what follows was never written whole. */
  readonly keep: number;
  readonly last: Anchor;
  /** Lines and pieces of lines that are cut off. */
  readonly torn: number;
  /** True when the lines do not agree with the head, which no crash explains. */
  readonly isBroken: boolean;
}

/** The newest file. */
export interface NewestFile {
  /** Number of its first line, as its name says. */
  readonly first: number;
  /** One byte a character. */
  readonly text: string;
}

/** Lines that end in a newline, each with the characters up to and with that. */
function* wholeLines(text: string): Generator<{ readonly piece: string; readonly end: number }> {
  let start = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', start)) {
    yield { piece: text.slice(start, at), end: at + 1 };
    start = at + 1;
  }
}

/**
 * Where a writer goes on: after the newest line that follows from the head's. Where the lines disagree with the head the
 * chain goes on from the head, so that every later check finds the place.
 */
export function resumeAfter({ first, text }: NewestFile, head: AuditHead): Resume {
  let last: Anchor | undefined = first === head.last.number + 1 ? head.last : undefined;
  let keep = 0;
  let whole = 0;
  let torn = 0;
  let highest = Math.max(head.last.number, first - 1);
  for (const { piece, end } of wholeLines(text)) {
    whole = end;
    const line = parseLine(piece);
    const found = line && { number: line.number, hash: hashLine(piece) };
    highest = Math.max(highest, line?.number ?? -1);
    const isNext = last !== undefined && line?.number === last.number + 1 && line.previous === last.hash;
    const isHead = found?.number === head.last.number && found.hash === head.last.hash;
    if (isNext || isHead) {
      last = found;
      keep = end;
      torn = 0;
    } else torn += 1;
  }
  const pieces = text.length > whole ? 1 : 0;
  if (last !== undefined) return { keep, last, torn: torn + pieces, isBroken: false };
  return { keep: whole, last: { number: highest, hash: head.last.hash }, torn: pieces, isBroken: true };
}

/** A head for a log that has lost its own: the newest line that can be read is believed. */
export function headFrom(oldest: AuditLine | undefined, { first, text }: NewestFile): AuditHead {
  let last: Anchor = { number: first - 1, hash: zeros };
  for (const { piece } of wholeLines(text)) {
    const line = parseLine(piece);
    if (line !== undefined) last = { number: line.number, hash: hashLine(piece) };
  }
  const { number, previous } = oldest ?? emptyHead.first;
  return { first: { number, previous }, last };
}
