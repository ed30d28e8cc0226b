/** Options: where values come from, what is refused, and that help and docs say the same. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { commandTable } from '../../cli/commands.ts';
import { configurationTables } from '../../cli/config/describe.ts';
import { keysCreateOptions, keysSetOptions, keysShowOptions } from '../../cli/config/key-tables.ts';
import { meshBanOptions, meshInviteOptions } from '../../cli/config/mesh-tables.ts';
import {
  expectedText,
  isArgument,
  longFlag,
  type OptionRow,
  type OptionTable,
  shapeOf,
} from '../../cli/config/option.ts';
import { readConfig, type Sources } from '../../cli/config/read.ts';
import { commandTables, commonOptions, gatewayOptions, nodeOptions } from '../../cli/config/tables.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { tempDir } from './temp-dir.ts';

const id = '0123456789abcdef';
const nothing: Sources = { flags: {}, env: {}, file: undefined };

/** The reasons that a reading was refused for, one per line. */
function refusals(run: () => unknown): readonly string[] {
  try {
    run();
  } catch (error) {
    if (isHelixFlowError(error, 'CONFIG_INVALID')) return error.details.reason.split('\n');
    throw error;
  }
  return [];
}

const tables: readonly (readonly [name: string, table: OptionTable])[] = [
  ['every command', commonOptions],
  ...Object.entries(commandTables),
];

/** Flags that a command cannot do without; words that follow it are needed anyway. */
const required: Readonly<Record<string, readonly string[]>> = {
  'mesh invite': ['--role'],
  'mesh backup': ['--out'],
  'mesh restore': ['--from'],
  'accounts create': ['--name'],
  'prices set': ['<model>', '--prompt', '--completion'],
};

describe('the tables', () => {
  test('a key is its flag in camelCase, and variables begin with HELIXFLOW_', ({ expect }) => {
    for (const [, table] of tables) {
      for (const [key, row] of Object.entries(table)) {
        const camel = longFlag(row)
          .slice(2)
          .replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
        if (isArgument(row)) expect([row.flag, row.env]).toEqual([`<${key}>`, '']);
        else {
          if (row.flag !== '') expect(camel).toBe(key);
          expect(row.env).toMatch(/^HELIXFLOW_[A-Z0-9_]+$/);
        }
      }
    }
  });

  test('one variable never means two things', ({ expect }) => {
    const meanings = new Map<string, Set<string>>();
    for (const [, table] of tables) {
      for (const row of Object.values<OptionRow>(table)) {
        if (!isArgument(row)) meanings.set(row.env, (meanings.get(row.env) ?? new Set()).add(row.about));
      }
    }
    expect([...meanings].filter(([, abouts]) => abouts.size > 1)).toEqual([]);
  });

  test('every fallback is a good value', ({ expect }) => {
    for (const [name, table] of tables) {
      const missing = refusals(() => readConfig(table, nothing));
      const needed =
        required[name] ?? Object.values<OptionRow>(table).flatMap((row) => (isArgument(row) ? row.flag : []));
      expect(missing.map((reason) => reason.split(' ')[0])).toEqual(needed);
    }
  });

  test('docs/configuration.md and docs/cli.md are what the tables say', async ({ expect }) => {
    const read = (name: string) => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
    expect(await read('configuration.md')).toContain(configurationTables());
    expect(await read('cli.md')).toContain(commandTable());
  });
});

describe('reading', () => {
  test('a flag goes before a variable, a variable before the file, the file before the fallback', async ({
    expect,
  }) => {
    await using dir = await tempDir();
    const file = join(dir.path, 'helixflow.json');
    await writeFile(file, JSON.stringify({ port: 1, host: 'file.example', callsMax: 7, slots: 3 }));
    const sources: Sources = {
      flags: { port: '3' },
      env: { HELIXFLOW_PORT: '2', HELIXFLOW_HOST: 'env.example' },
      file,
    };
    const { port, host, callsMax, p2pHost } = readConfig(gatewayOptions, sources, Object.keys(nodeOptions));
    expect({ port, host, callsMax, p2pHost }).toEqual({
      port: 3,
      host: 'env.example',
      callsMax: 7,
      p2pHost: '0.0.0.0',
    });
  });

  test('the result cannot be changed', ({ expect }) => {
    expect(Object.isFrozen(readConfig(gatewayOptions, nothing))).toBe(true);
  });

  test('all bad values are told together, each with its source and what was expected', ({ expect }) => {
    const sources: Sources = {
      flags: { engine: 'magic', announce: ['/dns4/example.org/tcp/1'] },
      env: { HELIXFLOW_NODE_SLOTS: 'banana', HELIXFLOW_DRAIN: '2 weeks', HELIXFLOW_P2P_PORT: '70000' },
      file: undefined,
    };
    expect(refusals(() => readConfig(nodeOptions, sources))).toEqual([
      '--engine magic: expected one of llama, synthetic',
      'HELIXFLOW_NODE_SLOTS=banana: expected an integer from 1 to 64',
      'HELIXFLOW_P2P_PORT=70000: expected an integer from 0 to 65535',
      `--announce /dns4/example.org/tcp/1: expected ${expectedText(nodeOptions.announce)}`,
      'HELIXFLOW_DRAIN=2 weeks: expected a duration such as 90s, 15m, 24h or 30d, from 1s to 1d',
    ]);
  });

  test.each([
    ['slots', '0'],
    ['slots', '65'],
    ['slots', '1.5'],
    ['slots', ' 4'],
    ['slots', '0x10'],
    ['context', '511'],
    ['tokensPerSecond', '0'],
    ['tokensPerSecond', 'Infinity'],
    ['upstream', 'ftp://example.org'],
    ['upstream', 'not a url'],
    ['digest', 'ABC'],
    ['p2pHost', 'example.org'],
    ['p2pPort', '-1'],
    ['metricsListen', '9464'],
    ['metricsListen', '127.0.0.1:99999'],
    ['gpu', 'maybe'],
    ['drain', '0s'],
    ['drain', '25h'],
    ['join', ''],
  ])('%s refuses %j', (key, text) => {
    const reasons = refusals(() => readConfig(nodeOptions, { ...nothing, flags: { [key]: text } }));
    if (reasons.length !== 1) throw new Error(`accepted, or refused for other reasons: ${reasons}`);
  });

  test('values arrive as what they mean', ({ expect }) => {
    const flags = {
      announce: ['/ip4/192.0.2.7/tcp/4001', '/ip6/2001:db8::1/tcp/4001'],
      model: ['a.gguf,b.gguf', 'c.gguf'],
      drain: '2m',
      metricsListen: '[::1]:9464',
      tokensPerSecond: '12.5',
    };
    const { announce, model, drain, metricsListen, tokensPerSecond } = readConfig(nodeOptions, { ...nothing, flags });
    expect({ announce, model, drain, metricsListen, tokensPerSecond }).toEqual({
      announce: ['/ip4/192.0.2.7/tcp/4001', '/ip6/2001:db8::1/tcp/4001'],
      model: ['a.gguf', 'b.gguf', 'c.gguf'],
      drain: 120_000,
      metricsListen: { host: '::1', port: 9464 },
      tokensPerSecond: 12.5,
    });
  });

  test('of two kinds of value each is found', ({ expect }) => {
    const read = (flags: Record<string, unknown>) =>
      readConfig(keysSetOptions, { ...nothing, flags: { key: id, ...flags } });
    expect(read({ rpm: '60', tpm: 'none', expires: '30d' })).toMatchObject({
      rpm: 60,
      tpm: null,
      expires: 2_592_000_000,
    });
    expect(read({ expires: 'never' })).toMatchObject({ rpm: undefined, expires: null });
    for (const flags of [{ rpm: '0' }, { rpm: 'all' }, { rpm: '1.5' }, { expires: 'soon' }]) {
      expect(refusals(() => read(flags))).toHaveLength(1);
    }
    const uses = (text: string) =>
      readConfig(meshInviteOptions, { ...nothing, flags: { role: 'node', uses: text } }).uses;
    expect([uses('5'), uses('unlimited')]).toEqual([5, 0]);
  });

  test('words that follow a command come from nowhere else', async ({ expect }) => {
    await using dir = await tempDir();
    const file = join(dir.path, 'helixflow.json');
    await writeFile(file, JSON.stringify({ key: id }));
    expect(refusals(() => readConfig(keysShowOptions, { ...nothing, file }))).toEqual([
      `${file}: unknown option 'key'`,
      '<key> is missing: expected a key id, which is 16 hex characters, or the whole key',
    ]);
    expect(readConfig(keysShowOptions, { ...nothing, flags: { key: id } })).toEqual({ key: id });
    expect(refusals(() => readConfig(keysShowOptions, { ...nothing, flags: { key: 'x' } }))).toHaveLength(1);
  });

  test('an empty variable counts as none', ({ expect }) => {
    expect(readConfig(gatewayOptions, { ...nothing, env: { HELIXFLOW_PORT: '' } }).port).toBe(7420);
  });

  test('an empty value of a flag is refused by every option that takes one', ({ expect }) => {
    const withValue = tables.flatMap(([name, table]) =>
      Object.entries<OptionRow>(table)
        .filter(([, row]) => row.flag !== '' && shapeOf(row).type !== 'boolean')
        .map(([key, row]) => ({ name, table, key, flag: longFlag(row) })),
    );
    expect(withValue.length).toBeGreaterThan(80);
    for (const { name, table, key, flag } of withValue) {
      const reasons = refusals(() => readConfig(table, { ...nothing, flags: { [key]: '' } }));
      expect(
        reasons.filter((reason) => reason.startsWith(`${flag} `) && !reason.includes(' is missing')),
        name,
      ).toHaveLength(1);
    }
  });

  test('a list of nothing is refused wherever it stands, so that it never means all', async ({ expect }) => {
    await using dir = await tempDir();
    const file = join(dir.path, 'c.json');
    await writeFile(file, JSON.stringify({ models: [] }));
    const set = (sources: Partial<Sources>) => () =>
      readConfig(keysSetOptions, { ...nothing, ...sources, flags: { key: id, ...sources.flags } });
    for (const models of [[''], [' '], [','], ['a', '']]) {
      expect(refusals(set({ flags: { models } }))).toHaveLength(1);
      expect(refusals(() => readConfig(keysCreateOptions, { ...nothing, flags: { models } }))).toHaveLength(1);
    }
    expect(refusals(set({ env: { HELIXFLOW_KEY_SET_MODELS: ',' } }))).toHaveLength(1);
    expect(refusals(set({ file }))).toHaveLength(1);
    expect(set({ flags: { models: ['*'] } })().models).toEqual([]);
    expect(set({ flags: { models: ['a*', '*'] } })().models).toEqual(['a*', '*']);
  });

  test('how long the issuer may be silent leaves room for its heartbeats; the grace may be none', ({ expect }) => {
    const read = (flags: Record<string, string>) => readConfig(gatewayOptions, { ...nothing, flags });
    expect(refusals(() => read({ maxStale: '119s' }))).toEqual([
      '--max-stale 119s: expected a duration such as 90s, 15m, 24h or 30d, from 2m to 30d',
    ]);
    expect(read({ maxStale: '2m', staleGrace: '0s' })).toMatchObject({ maxStale: 120_000, staleGrace: 0 });
  });

  test('a whole key stands for its id', async ({ expect }) => {
    const read = (key: string) => readConfig(keysShowOptions, { ...nothing, flags: { key } });
    const whole = (claims: unknown) =>
      `sk-hx-${[{ alg: 'EdDSA' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')}.${'A'.repeat(86)}`;
    expect(read(whole({ sub: id }))).toEqual({ key: id });
    for (const claims of [{ sub: 'x' }, { sub: 7 }, {}, null, [], 'x']) {
      const [reason = '', ...more] = refusals(() => read(whole(claims)));
      expect([reason.startsWith('<key> sk-hx-eyJhbG…: '), more]).toEqual([true, []]);
    }
    expect(refusals(() => read('sk-hx-a.b.c'))).toHaveLength(1);
  });

  test('what looks like a secret is not repeated, whichever option it was given to', ({ expect }) => {
    const long = 'x'.repeat(81);
    for (const value of ['sk-hx-0123456789', 'hx-invite-0123456789', 'eyJhbGciOi.J9abcdef.xyz', long]) {
      const [reason = ''] = refusals(() => readConfig(meshBanOptions, { ...nothing, flags: { peer: value } }));
      expect(reason).toMatch(`<peer> ${value.slice(0, 12)}…: expected a peer id`);
    }
  });

  test('a secret is not repeated when it is wrong', ({ expect }) => {
    const token = `hx-invite-${'x'.repeat(100_000)}`;
    const [reason = ''] = refusals(() => readConfig(nodeOptions, { ...nothing, env: { HELIXFLOW_JOIN: token } }));
    expect(reason).toMatch(/^HELIXFLOW_JOIN=\[hidden\]: expected an invite/);
  });
});

describe('the file', () => {
  test('unknown keys are refused with what may have been meant', async ({ expect }) => {
    await using dir = await tempDir();
    const file = join(dir.path, 'c.json');
    await writeFile(file, JSON.stringify({ prot: 1, xyzzy: 2, port: 'banana' }));
    expect(refusals(() => readConfig(gatewayOptions, { ...nothing, file }))).toEqual([
      `${file}: unknown option 'prot', did you mean 'port'?`,
      `${file}: unknown option 'xyzzy'`,
      `${file}: port=banana: expected an integer from 0 to 65535`,
    ]);
  });

  test.each(['', '[]', '{"port": 1', 'null', '"text"'])('%j is no configuration', async (text) => {
    await using dir = await tempDir();
    const file = join(dir.path, 'c.json');
    await writeFile(file, text);
    if (refusals(() => readConfig(gatewayOptions, { ...nothing, file })).length !== 1) throw new Error('accepted');
  });

  test('a file that cannot be read is told by its path', ({ expect }) => {
    expect(refusals(() => readConfig(gatewayOptions, { ...nothing, file: '/nowhere/c.json' }))).toEqual([
      'the configuration file /nowhere/c.json cannot be read: it does not exist',
    ]);
  });
});
