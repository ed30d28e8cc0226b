/** Daemons that are asked to end by a command: what they still do, what they say, and that they are gone. */

import { join } from 'node:path';
import { describe, test } from 'vitest';
import { drainedText } from '../../cli/drain.ts';
import { addDrained, createEnding, nothingDrained } from '../../cli/ending.ts';
import { parseArguments } from '../../cli/program.ts';
import { seconds } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { jsonLine, type RunningCli, runCli, startCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

describe('an ending', () => {
  test('begins once, and hurries when its time is over', async ({ expect }) => {
    const clock = new ManualClock();
    const ending = createEnding(clock);
    expect([ending.signal.aborted, ending.hurry.aborted]).toEqual([false, false]);
    ending.begin(seconds(30));
    await ending.begun;
    await clock.advance(29_999);
    expect([ending.signal.aborted, ending.hurry.aborted]).toEqual([true, false]);
    await clock.advance(1);
    expect(ending.hurry.aborted).toBe(true);
  });

  test.for([
    [30, 10, 10],
    [10, 30, 10],
    [30, 0, 0],
  ])('asked for %d s and then for %d s it takes %d s', async ([first = 0, second = 0, taken = 0], { expect }) => {
    const clock = new ManualClock();
    const ending = createEnding(clock);
    ending.begin(seconds(first));
    ending.begin(seconds(second));
    await clock.advance(Math.max(0, taken * 1_000 - 1));
    expect(ending.hurry.aborted).toBe(taken === 0);
    await clock.advance(1);
    expect(ending.hurry.aborted).toBe(true);
  });

  test('is told in one line', ({ expect }) => {
    const drained = addDrained(nothingDrained, { finished: 1, handedOver: 2, cut: 0 });
    expect([drainedText('node', drained), drainedText('gateway', { ...drained, handedOver: 0, cut: 1 })]).toEqual([
      'helixflow node has ended: 1 answer finished, 2 answers handed over',
      'helixflow gateway has ended: 1 answer finished, 1 answer ended with an error',
    ]);
  });
});

describe('a command below another one', () => {
  const parse = (text: string): unknown => {
    const invocation = parseArguments(text.split(' '));
    return invocation.kind === 'run' ? [invocation.command.path, invocation.flags] : invocation.kind;
  };

  test.for<[string, unknown]>([
    ['node --slots 3', ['node', { slots: '3' }]],
    ['node drain', ['node drain', {}]],
    ['node drain --grace 5s --data-dir d', ['node drain', { grace: '5s', dataDir: 'd' }]],
    ['node --json --data-dir d drain --now', ['node drain', { json: true, dataDir: 'd', now: true }]],
    ['gateway --grace 1 --json', ['gateway', { grace: '1', json: true }]],
    ['gateway drain --grace 1s', ['gateway drain', { grace: '1s' }]],
    ['mesh peers --json', ['mesh peers', { json: true }]],
  ])('helixflow %s', ([text, expected], { expect }) => {
    expect(parse(text)).toEqual(expected);
  });

  test.for(['node --slots 3 drain', 'gateway --grace 1 drain', 'node drain --slots 3', 'node drain now', 'node dran'])(
    'helixflow %s is refused',
    (text, { expect }) => {
      expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    },
  );
});

const local = ['--p2p-host', '127.0.0.1', '--json'];

type Name = 'g' | 'n' | 'm';

interface Daemons extends AsyncDisposable {
  readonly gateway: RunningCli;
  readonly node: RunningCli;
  at(name: Name): string;
  /** Another node. */
  addNode(name: Name): Promise<RunningCli>;
  statusOf(name: Name): Promise<Record<string, unknown>>;
  /** Begins a stream of so many tokens, at 20 a second; resolves once its first piece is there. */
  stream(tokens: number): Promise<ReadableStreamDefaultReader<string>>;
  drain(name: Name, ...more: string[]): ReturnType<typeof runCli>;
}

/** A gateway and a node that is slow enough to be caught at work, each a process. */
async function startDaemons(): Promise<Daemons> {
  await using opened = new AsyncDisposableStack();
  const dir = opened.use(await tempDir());
  const at = (name: Name): string => join(dir.path, name);
  await runCli(['mesh', 'create', '--data-dir', at('g'), '--json']);
  const gateway = opened.use(startCli(['gateway', '--port', '0', '--data-dir', at('g'), ...local]));
  const { baseUrl } = await gateway.ready();
  const addNode = async (name: Name): Promise<RunningCli> => {
    const invite = ['mesh', 'invite', '--role', 'node', '--data-dir', at('g'), '--json'];
    const env = { HELIXFLOW_JOIN: String(jsonLine((await runCli(invite)).stdout)['token']) };
    const engine = ['--engine', 'synthetic', '--tokens-per-second', '20', '--region', 'eu-central'];
    const node = startCli(['node', ...engine, '--data-dir', at(name), ...local], { env });
    parts.use(node);
    await node.ready();
    return node;
  };
  const parts = opened.use(new AsyncDisposableStack());
  const node = await addNode('n');
  const { key } = jsonLine((await runCli(['keys', 'create', '--data-dir', at('g'), '--json'])).stdout);
  const all = opened.move();
  return {
    gateway,
    node,
    at,
    addNode,
    statusOf: async (name) => {
      const status = jsonLine((await runCli(['status', '--data-dir', at(name), '--json'])).stdout);
      return status[name === 'g' ? 'gateway' : 'node'] as Record<string, unknown>;
    },
    stream: async (tokens) => {
      const answer = await fetch(`${baseUrl}/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify({
          model: 'synthetic',
          stream: true,
          max_tokens: tokens,
          messages: [{ role: 'user', content: 'hi' }],
        }),
      });
      const reader = (answer.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader();
      await reader.read();
      return reader;
    },
    drain: (name, ...more) =>
      runCli([name === 'g' ? 'gateway' : 'node', 'drain', '--data-dir', at(name), '--json', ...more]),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

const restOf = async (reader: ReadableStreamDefaultReader<string>): Promise<string> => {
  let text = '';
  for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
  return text;
};

describe('helixflow node drain', () => {
  test('lets the answer under way finish, ends the process, and says so', async ({ expect }) => {
    await using daemons = await startDaemons();
    expect(await daemons.statusOf('n')).toMatchObject({ region: 'eu-central', draining: false });
    const stream = await daemons.stream(200);
    const drained = daemons.drain('n', '--grace', '30s');
    expect(await restOf(stream)).toMatch(/data: \[DONE\]\n\n$/);
    const { code, stdout } = await drained;
    expect([code, jsonLine(stdout)]).toEqual([
      0,
      { event: 'drained', command: 'node', pid: daemons.node.child.pid, finished: 1, handedOver: 0, cut: 0 },
    ]);
    expect((await daemons.node.ended).code).toBe(0);
    expect(await daemons.drain('n')).toMatchObject({ code: 5, stdout: '' });
    // It stayed for what its gateway states of the answer.
    const tail = async (): Promise<unknown> =>
      jsonLine((await runCli(['ledger', 'tail', '--data-dir', daemons.at('g'), '--json'])).stdout);
    await expect.poll(tail, { timeout: 20_000 }).toMatchObject({ state: 'countersigned', outcome: 'done' });
  });

  test('hands over to another node what it is not to finish, and the client notices nothing', async ({ expect }) => {
    await using daemons = await startDaemons();
    await daemons.addNode('m');
    await expect.poll(() => daemons.statusOf('g'), { timeout: 20_000 }).toMatchObject({ nodes: [{}, {}] });
    const stream = await daemons.stream(200);
    const [first, second] = await Promise.all([daemons.statusOf('n'), daemons.statusOf('m')]);
    expect([first['active'], second['active']].toSorted()).toEqual([0, 1]);
    const [busy, other] = first['active'] === 1 ? (['n', 'm'] as const) : (['m', 'n'] as const);
    const [drained, text] = await Promise.all([daemons.drain(busy, '--now'), restOf(stream)]);
    expect(jsonLine(drained.stdout)).toMatchObject({ finished: 0, handedOver: 1 });
    expect(text).toMatch(/"splices":1[\s\S]*data: \[DONE\]\n\n$/);
    expect(await daemons.statusOf(other)).toMatchObject({ served: { done: 1, failed: 0, cancelled: 0 } });
  });

  test('shows that it drains, refuses another role’s daemon, and gives way to a second Ctrl-C', async ({ expect }) => {
    await using daemons = await startDaemons();
    expect(await runCli(['gateway', 'drain', '--data-dir', daemons.at('n'), '--json'])).toMatchObject({
      code: 2,
      stdout: '',
    });
    await daemons.stream(100_000);
    const drained = daemons.drain('n', '--grace', '1h');
    await expect.poll(() => daemons.statusOf('n'), { timeout: 20_000 }).toMatchObject({ draining: true, active: 1 });
    const ask = (): number | null => {
      daemons.node.child.kill('SIGINT');
      return daemons.node.child.exitCode;
    };
    await expect.poll(ask, { interval: 150 }).toBe(130);
    expect(await drained).toMatchObject({ code: 5, stdout: '' });
  });
});

describe('helixflow gateway drain', () => {
  test('lets its clients have their answers, and refuses others', async ({ expect }) => {
    await using daemons = await startDaemons();
    const stream = await daemons.stream(200);
    const drained = daemons.drain('g', '--grace', '30s');
    expect(await restOf(stream)).toMatch(/data: \[DONE\]\n\n$/);
    const { code, stdout } = await drained;
    expect([code, jsonLine(stdout)]).toMatchObject([0, { command: 'gateway', finished: 1, handedOver: 0, cut: 0 }]);
    expect((await daemons.gateway.ended).code).toBe(0);
  });

  test('tells those whose answers it does not finish', async ({ expect }) => {
    await using daemons = await startDaemons();
    const stream = await daemons.stream(100_000);
    const { stdout } = await daemons.drain('g', '--now');
    expect(jsonLine(stdout)).toMatchObject({ finished: 0, cut: 1 });
    const rest = await restOf(stream);
    expect([rest.includes('"error"'), rest.includes('[DONE]')]).toEqual([true, false]);
  });
});
