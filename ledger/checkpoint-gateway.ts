/** What is remembered of one gateway's statements, as values for a checkpoint and back. */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { type AuthorId, type EpochId, isPeerId, type PeerId, type ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { Reader } from '../protocol/reader.ts';
import { Intervals } from './intervals.ts';
import { LineReader, LineWriter, lineTokensMax, type UsageLine } from './line.ts';
import { refusalReasons } from './statement.ts';
import { OpenRequest, type Saying } from './usage-request.ts';
import { GatewayState, type Run, tabName, type Unsigned, type UsageBounds } from './usage-state.ts';

/** The kinds of part; each is written as `[kind, …]`. */
const parts = { counts: 0, run: 1, tab: 2, request: 3, unsigned: 4, progress: 5 } as const;

const damaged = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `checkpoint: ${reason}` });

/** By itself, since an attempt may have been stated twice; as bytes, since values lie in each other only so deep. */
function writeLine(line: UsageLine): Uint8Array {
  const writer = new LineWriter();
  const row = writer.write(line);
  return encodeValue([writer.tables(), row]).slice();
}

function readLine(r: Reader): UsageLine {
  const pair = new Reader(decodeValue(r.bytes(limits.entryMaxBytes)), 'line');
  const reader = new LineReader(pair.row());
  return reader.read(pair.list(32, (item) => item));
}

const readPeer = (r: Reader): PeerId => {
  const peer = r.text(64);
  if (!isPeerId(peer)) throw damaged('no peer id');
  return peer;
};
const readRun = (r: Reader): ProcessId => toHex(r.bytes(16, 16)) as ProcessId;
const readEpoch = (r: Reader): EpochId => toHex(r.bytes(16, 16)) as EpochId;
const readCount = (r: Reader): number => r.int();

/** Sayings by the numbers that stand for them. */
class Numbers {
  readonly #numbers = new Map<Saying, number>();

  of(saying: Saying): number {
    const known = this.#numbers.get(saying) ?? this.#numbers.size;
    this.#numbers.set(saying, known);
    return known;
  }
}

function writeRequest({ run, numbers, facts }: OpenRequest, sayings: Numbers): Value {
  const all = facts.map(({ node, serial, runningTokens, said }): Value => {
    const words = said.map((saying): Value => {
      const { line, isCountersigned, refused } = saying;
      const word = refused === undefined ? null : refusalReasons.indexOf(refused);
      return [sayings.of(saying), writeLine(line), isCountersigned, word];
    });
    return [node, serial, runningTokens, words];
  });
  return [parts.request, fromHex(run), numbers, all];
}

function writeUnsigned({ node, epoch, hash, timeMs, lines, running }: Unsigned, sayings: Numbers): Value {
  const told = lines.map((saying): Value => {
    if (saying === undefined || saying.request?.isClosed === true) return null;
    // A serial that was settled before belongs to no request.
    return saying.request === undefined ? writeLine(saying.line) : sayings.of(saying);
  });
  const open = running.filter(({ request }) => request?.isClosed === false);
  const of = [node, fromHex(epoch), fromHex(hash), timeMs];
  return [parts.unsigned, ...of, told, open.map((saying) => sayings.of(saying))];
}

/**
 * In parts of a few kilobytes or less: everything but countersignatures whose statements are not known yet, which stand in
 * the feed and are told again.
 */
export function writeGateway(state: GatewayState): Value[] {
  const sayings = new Numbers();
  const written: Value[] = [[parts.counts, state.abandoned, state.statements, state.newestMs]];
  for (const [run, { past }] of state.runs) written.push([parts.run, fromHex(run), past.steps()]);
  for (const [name, numbers] of state.tabs) {
    const [epoch = '', node = ''] = name.split(' ');
    written.push([parts.tab, fromHex(epoch), node, numbers.steps()]);
  }
  for (const request of state.requests()) written.push(writeRequest(request, sayings));
  for (const unsigned of state.unsigned.values()) written.push(writeUnsigned(unsigned, sayings));
  for (const [name, tokens] of state.earlyCounts) {
    const [run = '', serial = '', node = ''] = name.split(' ');
    written.push([parts.progress, fromHex(run), Number(serial), node, tokens]);
  }
  return written;
}

/** Puts parts together again, in the order in which they were written. */
export class GatewayReader {
  readonly state: GatewayState;
  readonly #sayings = new Map<number, Saying>();

  constructor(author: AuthorId, bounds: UsageBounds) {
    this.state = new GatewayState(author, bounds);
  }

  /** @throws HelixFlowError FRAME_MALFORMED */
  take(part: Value): void {
    const { state } = this;
    const r = new Reader(part, 'part');
    switch (r.int(parts.progress)) {
      case parts.counts:
        state.abandoned = r.int();
        state.statements = r.int();
        state.newestMs = r.int();
        break;
      case parts.run: {
        const run = readRun(r);
        const past = this.#intervals(r, state.bounds.gapsMax);
        state.gaps += past.count;
        const known = state.runOf(run);
        if (known !== undefined) state.runs.set(run, { past, open: known.open });
        break;
      }
      case parts.tab: {
        const name = tabName(readEpoch(r), readPeer(r));
        state.tabs.set(name, this.#intervals(r, state.bounds.earlyMax));
        break;
      }
      case parts.request:
        this.#request(r);
        break;
      case parts.unsigned:
        this.#unsigned(r);
        break;
      case parts.progress: {
        const [run, serial, node] = [readRun(r), readCount(r), readPeer(r)];
        state.earlyCounts.set(`${run} ${serial} ${node}`, r.int(lineTokensMax));
        break;
      }
    }
  }

  #intervals(r: Reader, max: number): Intervals {
    const numbers = Intervals.of(r.ints(2 * max), max);
    if (numbers === undefined) throw damaged('no intervals');
    return numbers;
  }

  #runOf(id: ProcessId): Run {
    const run = this.state.runOf(id);
    if (run === undefined) throw damaged('too many processes');
    return run;
  }

  #request(r: Reader): void {
    const { author, bounds } = this.state;
    const request = new OpenRequest(author, readRun(r));
    request.numbers = r.ints(bounds.gapsMax);
    request.facts = r.list(bounds.gapsMax, (value) => {
      const row = new Reader(value, 'facts');
      const facts = { author, node: readPeer(row), serial: row.int(), runningTokens: row.int(), said: [] as Saying[] };
      facts.said = row.list(bounds.gapsMax, (said) => this.#saying(said, request));
      return facts;
    });
    if (request.facts.some(({ said }) => said.length === 0)) throw damaged('an attempt of which nothing was said');
    const { open } = this.#runOf(request.run);
    for (const number of request.numbers) open.set(number, request);
  }

  #saying(value: Value, request: OpenRequest): Saying {
    const r = new Reader(value, 'said');
    const number = r.int();
    const saying: Saying = { line: readLine(r), isCountersigned: r.bool(), request };
    const refused = r.optional((word) => refusalReasons[word.int(refusalReasons.length - 1)]);
    if (refused !== undefined) saying.refused = refused;
    this.#sayings.set(number, saying);
    return saying;
  }

  #said(number: number): Saying {
    const saying = this.#sayings.get(number);
    if (saying === undefined) throw damaged('nothing that was said');
    return saying;
  }

  #unsigned(r: Reader): void {
    const { bounds } = this.state;
    const of = { node: readPeer(r), epoch: readEpoch(r), hash: toHex(r.bytes(32, 32)), timeMs: r.int() };
    const lines = r.list(bounds.unsignedLinesMax, (value): Saying | undefined => {
      if (value === null) return undefined;
      if (typeof value === 'number') return this.#said(value);
      return { line: readLine(new Reader([value], 'line')), isCountersigned: false, request: undefined };
    });
    const running = r.ints(bounds.unsignedLinesMax).map((number) => this.#said(number));
    this.state.wait({ ...of, lines, running });
  }
}
