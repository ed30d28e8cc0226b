/** Whatever happens to calls in whatever order: each has one end, nothing stays behind, and no answer is other than it should be. */

import fc from 'fast-check';
import { test } from 'vitest';
import type { AnswerEnd, AnswerEvents } from '../../../gateway/service.ts';
import { costMicro } from '../../../ledger/price.ts';
import { type ErrorCode, HelixFlowError } from '../../../protocol/errors.ts';
import type { AccountId, RequestId } from '../../../protocol/ids.ts';
import type { EngineModel } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, modelThat, piecesCount, TellingEngine, type TellingNode, wholeText, wholeTokens } from './told.ts';

/** At which moment a client leaves by itself, from within what it hears. */
const moods = ['stays', 'stays', 'stays', 'stays', 'committed', 'delta', 'restarted'] as const;

class Client implements AnswerEvents {
  readonly request: RequestId;
  readonly log: string[] = [];
  text = '';
  end: AnswerEnd | HelixFlowError | undefined;
  readonly #mood: (typeof moods)[number];
  leave: () => void = () => {};

  constructor(number: number, mood: (typeof moods)[number]) {
    this.request = number.toString(16).padStart(32, '0') as RequestId;
    this.#mood = mood;
  }

  get hasLeft(): boolean {
    return this.log.includes('left');
  }

  committed(): void {
    this.#heard('committed');
  }

  delta(text: string): void {
    this.text += text;
    this.#heard('delta');
  }

  restarted(): void {
    this.text = '';
    this.#heard('restarted');
  }

  done(end: AnswerEnd): void {
    this.end = end;
    this.#heard('end');
  }

  failed(error: HelixFlowError): void {
    this.end = error;
    this.#heard('end');
  }

  goes(): void {
    if (this.hasLeft) return;
    this.leave();
    this.log.push('left');
  }

  #heard(what: string): void {
    this.log.push(what);
    if (what === this.#mood) this.goes();
  }
}

const at = fc.nat(5);
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('call' as const),
      at,
      mood: fc.constantFrom(...moods),
      isWhole: fc.boolean(),
      deadlineMs: fc.integer({ min: 100, max: 30_000 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('tell' as const), at, pieces: fc.integer({ min: 1, max: piecesCount }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('fail' as const),
      at,
      code: fc.constantFrom<ErrorCode>(
        'ENGINE_FAILED',
        'NODE_OVERLOADED',
        'NODE_DRAINING',
        'RESUME_REFUSED',
        'ENGINE_REFUSED',
        'CONTEXT_LENGTH_EXCEEDED',
      ),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      at,
      delayMs: fc.constantFrom(10, 100, 500, 2_000, 5_000, 12_000),
    }),
  },
  ...(['finish', 'settle', 'cut', 'pause', 'resume', 'leave', 'revoke', 'drain', 'sync', 'learn'] as const).map(
    (what) => ({
      weight: what === 'finish' || what === 'settle' ? 5 : 1,
      arbitrary: fc.record({ do: fc.constant(what), at }),
    }),
  ),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const price = { id: '' as const, prompt: 2_000_000, cached: 1_000_000, completion: 1_000_000 };
const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
const budget = { amountMicro: 1, period: 'total' } as const;
const callerOf = (at: number) =>
  accessOf({
    account: `account${at % 3}` as AccountId,
    limits: { concurrency: 4 },
    ...(at % 2 === 0 ? {} : { budget }),
  });

class Storm {
  readonly mesh = new SmallMesh(100, undefined, { policy: { hedgeShare: 1 }, waitingMax: 6 });
  readonly model: EngineModel;
  readonly nodes: TellingNode[] = [];
  readonly clients: Client[] = [];
  readonly #paused = new Set<TellingNode>();

  constructor(continuation: EngineModel['continuation']) {
    this.model = modelThat(continuation);
    this.mesh.accounting.price = price;
    for (let slots = 1; slots <= 3; slots += 1)
      this.nodes.push(addTelling(this.mesh, new TellingEngine(this.model, slots)));
  }

  async settle(): Promise<void> {
    for (let round = 0; round < 4; round += 1) {
      for (const node of this.nodes) if (!this.#paused.has(node)) node.link.settle();
      await this.mesh.clock.turn();
    }
  }

  async pass(delayMs: number): Promise<void> {
    for (let left = delayMs; left > 0; left -= 250) {
      await this.mesh.clock.advance(Math.min(250, left));
      await this.settle();
    }
  }

  /** Long enough that all is over, with nobody silent. */
  async end(): Promise<void> {
    this.#paused.clear();
    this.mesh.accounting.isSlow = false;
    this.mesh.accounting.sync();
    await this.pass(33_000);
  }

  async play(one: Step): Promise<void> {
    const node = this.nodes[one.at % this.nodes.length];
    const { mesh } = this;
    const generation = node?.engine.running[one.at % Math.max(1, node.engine.running.length)];
    switch (one.do) {
      case 'call':
        this.#call(one);
        break;
      case 'tell':
        if (generation !== undefined) node?.engine.tell(one.pieces, generation);
        break;
      case 'finish':
        if (generation !== undefined) node?.engine.finish(generation);
        break;
      case 'fail':
        generation?.fail(failure(one.code));
        break;
      case 'cut':
        if (node !== undefined) this.#cut(node);
        break;
      case 'pause':
        if (node !== undefined) this.#paused.add(node);
        break;
      case 'resume':
        this.#paused.clear();
        break;
      case 'leave':
        this.clients[one.at]?.goes();
        break;
      case 'revoke':
        mesh.gateway.cut(callerOf(0).keyId, callerOf(0).issuer);
        break;
      case 'drain':
        if (node !== undefined) await this.#drain(node);
        break;
      case 'sync':
        mesh.accounting.isSlow = !mesh.accounting.isSlow;
        mesh.accounting.sync();
        break;
      case 'learn':
        await this.#learn();
        break;
      case 'settle':
        await this.settle();
        break;
      case 'pass':
        await this.pass(one.delayMs);
        break;
    }
  }

  #call({ at, mood, isWhole, deadlineMs }: Extract<Step, { do: 'call' }>): void {
    const client = new Client(this.clients.length + 1, mood);
    this.clients.push(client);
    const { request } = client;
    const call = { request, caller: callerOf(at), model: 'm', chat, deadlineMs: ms(deadlineMs), isWhole };
    const answer = this.mesh.gateway.chat(call, client);
    client.leave = () => answer.cancel();
  }

  #cut(node: TellingNode): void {
    this.#paused.delete(node);
    node.link.cut();
    const engine = new TellingEngine(this.model, node.engine.slots);
    this.nodes[this.nodes.indexOf(node)] = { ...this.mesh.back(node, engine), engine };
  }

  async #drain(node: TellingNode): Promise<void> {
    void node.server.drain(AbortSignal.abort());
    await this.settle();
    this.#cut(node);
  }

  /** Many answers that take their ten milliseconds, so that what takes longer is late. */
  async #learn(): Promise<void> {
    for (let count = 0; count < 40; count += 1) {
      await this.mesh.call('m', 20_000);
      await this.pass(10);
      for (const { engine } of this.nodes) for (const running of [...engine.running]) engine.finish(running);
    }
    await this.settle();
  }
}

function failure(code: ErrorCode): HelixFlowError {
  const contextTokens = 1_000;
  if (code === 'CONTEXT_LENGTH_EXCEEDED') {
    return new HelixFlowError(code, { contextTokens, requestedTokens: 2, promptTokens: 1, completionTokens: 1 });
  }
  if (code === 'NODE_OVERLOADED') return new HelixFlowError(code, { retryAfterMs: 1 });
  if (code === 'ENGINE_REFUSED') return new HelixFlowError(code, { status: 400 });
  if (code === 'RESUME_REFUSED' || code === 'ENGINE_FAILED') return new HelixFlowError(code, { reason: 'x' });
  return new HelixFlowError('NODE_DRAINING', {});
}

/** What is wrong with what a client heard. */
function mistakesOf(client: Client, model: EngineModel): string[] {
  const { log, text, end, hasLeft } = client;
  const mistakes: string[] = [];
  const ends = log.filter((what) => what === 'end').length;
  if (hasLeft ? log.at(-1) !== 'left' || ends > 1 : ends !== 1 || log.at(-1) !== 'end') mistakes.push(log.join(' '));
  if (log.filter((what) => what === 'committed').length > 1) mistakes.push('committed twice');
  if (!wholeText.startsWith(text)) mistakes.push(`told ${text}`);
  if (end === undefined || end instanceof HelixFlowError) return mistakes;
  if (text !== wholeText) mistakes.push(`done with ${text}`);
  if (end.completionTokens !== wholeTokens(model)) mistakes.push(`${end.completionTokens} tokens`);
  return mistakes;
}

/** What is wrong with the books. */
function misentries({ mesh, clients }: Storm): string[] {
  const { lines, holds, spentMicro, heldMicro } = mesh.accounting;
  const mistakes: string[] = [];
  for (const { serial, end, isDropped } of lines)
    if ((end === undefined) !== isDropped) mistakes.push(`line ${serial}`);
  let owedMicro = 0;
  for (const { start, end } of lines) {
    if (end === undefined || end.outcome === 'hedged' || start.lease === undefined) continue;
    const isPromptPaid = end.outcome === 'done' || end.outcome === 'cancelled';
    const prompt = isPromptPaid ? end : { promptTokens: 0, cachedTokens: 0 };
    const { promptTokens, cachedTokens } = prompt;
    owedMicro += costMicro(price, { promptTokens, cachedTokens, completionTokens: end.completionTokens });
  }
  if (owedMicro !== spentMicro || heldMicro !== 0)
    mistakes.push(`owed ${owedMicro}, spent ${spentMicro}, held ${heldMicro}`);
  if (holds.some(({ settled }) => settled !== 1)) mistakes.push('a hold was not settled once');
  for (const { request, end } of clients) {
    const own = lines.filter(
      ({ start, end: line }) => start.request === request && line !== undefined && line.outcome !== 'hedged',
    );
    const paid = own.filter(({ end: line }) => line?.outcome === 'done' || line?.outcome === 'cancelled').length;
    if (paid > 1) mistakes.push(`${request} pays ${paid} prompts`);
    if (end === undefined || end instanceof HelixFlowError) continue;
    const tokens = own.reduce((sum, { end: line }) => sum + (line?.completionTokens ?? 0), 0);
    if (tokens !== end.completionTokens)
      mistakes.push(`${request} has ${end.completionTokens} tokens, its lines ${tokens}`);
  }
  return mistakes;
}

/** What is left of the calls anywhere. */
async function leftovers({ mesh, nodes }: Storm): Promise<unknown[]> {
  const { gateway } = mesh;
  let isDrained = false;
  void gateway.drain().then(() => {
    isDrained = true;
  });
  await mesh.settle();
  const busy = gateway.nodes().filter(({ active, queued, counts }) => {
    return active !== 0 || queued !== 0 || counts.attempts !== counts.done + counts.failed + counts.cancelled;
  });
  return [
    ...(isDrained ? [] : ['not drained']),
    ...(gateway.calls() + gateway.waiting() === 0 ? [] : [{ calls: gateway.calls(), waiting: gateway.waiting() }]),
    ...busy,
    ...nodes.flatMap(({ engine }) => engine.running.map(({ request }) => request)),
  ];
}

test('a storm leaves each call with one end, a true text, its lines and its money, and nothing behind', async ({
  expect,
}) => {
  const met = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('tokens', 'text', 'none'),
      fc.array(step, { minLength: 10, maxLength: 70 }),
      async (continuation, steps) => {
        const storm = new Storm(continuation);
        for (const one of steps) await storm.play(one);
        await storm.end();
        expect(storm.clients.flatMap((client) => mistakesOf(client, storm.model))).toEqual([]);
        expect(misentries(storm)).toEqual([]);
        expect(await leftovers(storm)).toEqual([]);
        for (const { end } of storm.mesh.accounting.lines) if (end !== undefined) met.add(end.outcome);
        for (const { end } of storm.clients) if (end instanceof HelixFlowError) met.add(end.code);
        for (const [what, count] of Object.entries(storm.mesh.gateway.counts.attempts)) if (count > 0) met.add(what);
      },
    ),
    { numRuns: 200 },
  );
  expect([...met]).toEqual(
    expect.arrayContaining(['done', 'cancelled', 'lost', 'cut', 'hedged', 'splice', 'restart', 'hedge']),
  );
});
