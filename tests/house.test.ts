/** The house keeps its rules, and every rule is seen to refuse a violation of it. */

import { existsSync, globSync, readFileSync } from 'node:fs';
import { describe, test } from 'vitest';
import { errorCodes } from '../protocol/errors.ts';
import { limitTable } from '../protocol/limits.ts';
import {
  formFaults,
  importFaults,
  machineFaults,
  namedFiles,
  tableUnder,
  testFaults,
  thrownCodes,
  undocumented,
  worldFaults,
  zones,
} from './house.ts';

const read = (file: string): string => readFileSync(file, 'utf8');
const exclude = ['node_modules/**', '**/node_modules/**', 'dist/**', 'coverage/**', '.git/**'];
const find = (pattern: string): string[] => globSync(pattern, { exclude }).sort();

const sources = find('{protocol,ledger,node,gateway,sim,cli}/**/*.{ts,mjs}');
const tests = find('tests/**/*.ts');
const texts = find('**/*.{ts,mjs,js,json,md,yml,yaml,py,c,sh,html,css}').concat(
  find('.ci/*'),
  find('.github/**/*.yml'),
);
const wire = read('protocol/README.md');

interface Manifest {
  readonly dependencies: Record<string, string>;
  readonly optionalDependencies: Record<string, string>;
}
const manifest = JSON.parse(read('package.json')) as Manifest;
const declared = new Set(Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }));

/** Every fault that `check` finds in `files`. */
const faultsIn = (files: readonly string[], check: (file: string, text: string) => readonly string[]): string[] =>
  files.flatMap((file) => check(file, read(file)));

describe('what the checkers see', () => {
  test('is the whole tree', ({ expect }) => {
    expect(sources.length).toBeGreaterThan(40);
    expect(tests.length).toBeGreaterThan(10);
    expect(texts.length).toBeGreaterThan(sources.length + tests.length);
    const folders = [...new Set(sources.map((file) => file.split('/')[0]))];
    expect(folders).toEqual(['cli', 'gateway', 'ledger', 'node', 'protocol', 'sim']);
  });
});

describe('arrows', () => {
  test('all imports follow them', ({ expect }) => {
    expect(faultsIn(sources, (file, text) => importFaults(file, text, declared))).toEqual([]);
  });

  const planted: readonly [why: string, file: string, text: string][] = [
    ['an upward import', 'ledger/apply.ts', "import { x } from '../node/serve.ts';"],
    ['a type-only upward import', 'protocol/codec.ts', "import type { X } from '../ledger/state.ts';"],
    ['a deep upward import', 'protocol/session/session.ts', "import { x } from '../../gateway/route/score.ts';"],
    ['an import over several lines', 'ledger/a.ts', "import {\n  a,\n  type B,\n} from '../cli/up.ts';"],
    ['a dynamic import', 'ledger/log.ts', "const m = await import('../node/node.ts');"],
    ['a require', 'ledger/log.ts', "const m = require('../node/node.ts');"],
    ['a re-export', 'protocol/ids.ts', "export type { X } from '../ledger/state.ts';"],
    ['a re-export of everything', 'protocol/ids.ts', "export * from '../ledger/state.ts';"],
    ['a side-effect import', 'ledger/log.ts', "import '../gateway/http/app.ts';"],
    ['node inside gateway', 'gateway/gateway.ts', "import { x } from '../node/admission.ts';"],
    ['gateway inside node', 'node/node.ts', "import { x } from '../gateway/service.ts';"],
    ['gateway inside an engine', 'node/engines/openai/engine.ts', "import { x } from '../../../gateway/service.ts';"],
    ['an adapter in a decider', 'node/node.ts', "import { x } from '../protocol/adapters/clock-system.ts';"],
    ['an adapter of its own folder', 'protocol/mesh.ts', "import { x } from './adapters/tokens-jose.ts';"],
    [
      'an adapter of another folder in an adapter',
      'ledger/adapters/a.ts',
      "import { x } from '../../protocol/adapters/b.ts';",
    ],
    ['an engine in the daemon', 'node/node.ts', "import { x } from './engines/synthetic.ts';"],
    ['hardware in a decider', 'node/node.ts', "import { x } from './hardware.ts';"],
    ['the HTTP skin in the service', 'gateway/service.ts', "import { x } from './http/app.ts';"],
    ['an adapter in the simulator', 'sim/world.ts', "import { x } from '../protocol/adapters/clock-system.ts';"],
    ['an engine in the simulator', 'sim/world.ts', "import { x } from '../node/engines/synthetic.ts';"],
    ['the HTTP skin in the simulator', 'sim/world.ts', "import { x } from '../gateway/http/app.ts';"],
    ['the CLI in the simulator', 'sim/world.ts', "import { x } from '../cli/main.ts';"],
    ['the CLI in a daemon', 'node/engines/llama/engine.ts', "import { x } from '../../../cli/main.ts';"],
    ['the simulator in a product', 'gateway/gateway.ts', "import { x } from '../sim/clock.ts';"],
    ['a test in a product', 'protocol/codec.ts', "import { x } from '../tests/support/frames.ts';"],
    ['a built-in in a decider', 'ledger/log.ts', "import { readFileSync } from 'node:fs';"],
    ['another built-in in crypto', 'protocol/crypto.ts', "import { tmpdir } from 'node:os';"],
    ['node:crypto elsewhere', 'protocol/grants.ts', "import { sign } from 'node:crypto';"],
    ['an impure package in a decider', 'gateway/gateway.ts', "import Fastify from 'fastify';"],
    ['a part of an impure package', 'protocol/peer/book.ts', "import { x } from '@libp2p/crypto/keys';"],
    ['an undeclared package in an edge', 'cli/up.ts', "import chalk from 'chalk';"],
    ['a development package in an edge', 'gateway/http/app.ts', "import OpenAI from 'openai';"],
    ['a file outside the house', 'lib/util.ts', 'export const x = 1;'],
  ];
  test.for(planted)('refuse %s', ([, file, text], { expect }) => {
    expect(importFaults(file, text, declared)).toHaveLength(1);
  });

  const allowed: readonly [why: string, file: string, text: string][] = [
    ['pure packages in deciders', 'protocol/a.ts', "import { z } from 'zod';\nimport { CID } from 'multiformats';"],
    [
      'everything in the CLI',
      'cli/up.ts',
      "import { x } from '../node/node.ts';\nimport y from 'node:fs';\nimport 'pino';",
    ],
    [
      'the core in the simulator',
      'sim/world.ts',
      "import { x } from '../gateway/gateway.ts';\nimport { y } from '../node/node.ts';",
    ],
    ['a package’s inner path in an adapter', 'protocol/adapters/a.ts', "import { x } from '@libp2p/crypto/keys';"],
    ['imports in prose', 'ledger/a.ts', "// import { x } from '../node/serve.ts';\n/* import '../cli/up.ts' */"],
  ];
  test.for(allowed)('let through %s', ([, file, text], { expect }) => {
    expect(importFaults(file, text, declared)).toEqual([]);
  });

  test('cover every folder of the house', ({ expect }) => {
    const covered = sources.filter((file) => zones.some((zone) => zone.from.test(file)));
    expect(covered).toEqual(sources);
  });
});

describe('the real world', () => {
  test('comes in through ports only', ({ expect }) => {
    expect(faultsIn(sources, worldFaults)).toEqual([]);
  });

  const planted: readonly [name: string, file: string, text: string][] = [
    ['Date.now', 'sim/world.ts', 'const t = Date.now();'],
    ['new Date', 'ledger/block.ts', 'const t = new Date(0);'],
    ['performance', 'gateway/route/score.ts', 'const t = performance.now();'],
    ['Math.random', 'gateway/route/plan.ts', 'const x = Math.random();'],
    ['setTimeout', 'protocol/session/heartbeat.ts', 'setTimeout(check, 10);'],
    ['setInterval', 'protocol/session/heartbeat.ts', 'setInterval(check, 10);'],
    ['setImmediate', 'sim/world.ts', 'setImmediate(run);'],
    ['setTimeout in the simulator’s clock', 'sim/clock.ts', 'setTimeout(run, 1);'],
    ['AbortSignal.timeout', 'node/serve.ts', 'const signal = AbortSignal.timeout(5);'],
    ['randomUUID', 'ledger/line.ts', 'const id = crypto.randomUUID();'],
    ['getRandomValues', 'ledger/line.ts', 'crypto.getRandomValues(bytes);'],
    ['crypto.subtle', 'protocol/grants.ts', "await crypto.subtle.digest('SHA-256', bytes);"],
    ['fetch', 'node/serve.ts', "await fetch('http://127.0.0.1');"],
    ['process', 'node/node.ts', "if (process.env['HOME']) run();"],
    ['process inside a template', 'node/node.ts', 'const text = `$' + '{process.pid}`;'],
    ['globalThis', 'node/node.ts', "globalThis['Date'].now();"],
    ['localeCompare', 'gateway/nodes.ts', 'names.sort((a, b) => a.localeCompare(b));'],
    ['toLocaleString', 'gateway/nodes.ts', 'const text = count.toLocaleString();'],
    ['Intl', 'gateway/nodes.ts', 'const collator = new Intl.Collator();'],
    ['WeakRef', 'protocol/peer/book.ts', 'const ref = new WeakRef(peer);'],
    ['FinalizationRegistry', 'protocol/peer/book.ts', 'new FinalizationRegistry(drop);'],
    ['console', 'gateway/gateway.ts', "console.log('x');"],
  ];
  test.for(planted)('is refused: %s', ([, file, text], { expect }) => {
    expect(worldFaults(file, text).length).toBeGreaterThan(0);
  });

  const allowed: readonly [why: string, file: string, text: string][] = [
    ['prose', 'ledger/apply.ts', '// Date.now() is banned here\n/* setTimeout */'],
    ['words in strings', 'protocol/errors.ts', "const text = 'see process.env and Date.now()';"],
    ['a name that is no global', 'protocol/peer/member.ts', 'const process = id; start(process, options.process);'],
    ['setImmediate in the simulator’s clock', 'sim/clock.ts', 'setImmediate(run);'],
    ['anything in an adapter', 'protocol/adapters/clock.ts', 'setTimeout(run, Date.now());'],
    ['anything in the CLI', 'cli/up.ts', 'process.exit(0);'],
  ];
  test.for(allowed)('may stay: %s', ([, file, text], { expect }) => {
    expect(worldFaults(file, text)).toEqual([]);
  });
});

describe('form', () => {
  const code = [...sources, ...tests, ...find('scripts/**/*.{ts,mjs}'), ...find('*.ts')];

  test('every file says what it owns, stays short and leaves nothing for later', ({ expect }) => {
    expect(faultsIn(code, formFaults)).toEqual([]);
  });

  const planted: readonly [why: string, file: string, text: string][] = [
    ['a file without its sentence', 'protocol/a.ts', 'export const x = 1;\n'],
    ['a line comment in its place', 'protocol/a.ts', '// Owns x.\n'],
    ['a long file', 'protocol/a.ts', `/** Owns x. */\n${'x();\n'.repeat(400)}`],
    ['a default export', 'protocol/a.ts', '/** Owns x. */\nexport default 1;\n'],
    ['a default export by name', 'protocol/a.ts', '/** Owns x. */\nexport { x as default };\n'],
    ['a very long test', 'tests/a.test.ts', `/** Tries x. */\n${'x();\n'.repeat(600)}`],
    ['work left for later', 'protocol/a.ts', `/** Owns x. */\n// ${'TO'}${'DO'}: more\n`],
    ['work left broken', 'protocol/a.ts', `/** Owns x. */\n// ${'FIX'}${'ME'}\n`],
  ];
  test.for(planted)('refuses %s', ([, file, text], { expect }) => {
    expect(formFaults(file, text)).toHaveLength(1);
  });

  test('lets configurations export by default, and scripts begin with their interpreter', ({ expect }) => {
    expect(formFaults('vitest.config.ts', '/** Test projects. */\nexport default {};\n')).toEqual([]);
    expect(formFaults('cli/helixflow.mjs', '#!/usr/bin/env node\n/** Starts the CLI. */\n')).toEqual([]);
  });

  test('tests take expect from their context and leave none out', ({ expect }) => {
    expect(
      faultsIn(
        tests.filter((file) => !file.startsWith('tests/house')),
        testFaults,
      ),
    ).toEqual([]);
    expect(testFaults('tests/a.test.ts', "import { expect, test } from 'vitest';")).toHaveLength(1);
    expect(testFaults('tests/a.test.ts', "test.skip('x', () => {});")).toHaveLength(1);
    expect(testFaults('tests/a.test.ts', "describe.only('x', () => {});")).toHaveLength(1);
  });
});

describe('docstrings', () => {
  const wireFiles = sources.filter((file) => /^protocol\/(?!adapters\/.+\/)/.test(file));

  test('every export of protocol/ has one', ({ expect }) => {
    expect(wireFiles.length).toBeGreaterThan(20);
    expect(faultsIn(wireFiles, (file, text) => undocumented(text).map((name) => `${file} exports ${name}`))).toEqual(
      [],
    );
  });

  test('an export without one is found', ({ expect }) => {
    expect(undocumented('/** Owns x. */\n\nexport const x = 1;\n')).toEqual(['x']);
    expect(undocumented('/** Says. */\nexport const x = 1;\n\nexport class Y {}\n')).toEqual(['Y']);
    expect(undocumented('export async function f(): void {}\nexport interface I {}\n')).toEqual(['f', 'I']);
  });

  test('one docstring may stand for a block of lines', ({ expect }) => {
    expect(undocumented('/** True for such a name. */\nexport const a = 1;\nexport const b = 2;\n')).toEqual([]);
  });
});

describe('one row per fact', () => {
  test('the error table, its details, the wire’s table and promised codes agree', ({ expect }) => {
    const details = /export interface ErrorDetails \{\n([\s\S]*?)\n\}/.exec(read('protocol/errors.ts'))?.[1] ?? '';
    const detailed = [...details.matchAll(/^ {2}([A-Z_]+):/gm)].map(([, code]) => code);
    expect(detailed.length).toBeGreaterThan(30);
    expect(detailed.toSorted()).toEqual(errorCodes.toSorted());
    expect(tableUnder(wire, 'Errors').map(([code]) => code)).toEqual(errorCodes);
    const promised = sources.flatMap((file) => thrownCodes(read(file)));
    expect(promised.length).toBeGreaterThan(20);
    expect(promised.filter((code) => !(errorCodes as readonly string[]).includes(code))).toEqual([]);
  });

  test('the limit table and the wire’s table agree', ({ expect }) => {
    const rows = Object.entries(limitTable).map(([name, row]) => [name, String(row.value), row.unit, row.why]);
    expect(tableUnder(wire, 'Limits')).toEqual(rows);
  });

  test('every limit and every error code is used', ({ expect }) => {
    const code = sources
      .filter((file) => !/^protocol\/(limits|errors)\.ts$/.test(file))
      .map(read)
      .join('\n');
    expect(Object.keys(limitTable).filter((name) => !new RegExp(`\\b${name}\\b`).test(code))).toEqual([]);
    expect(errorCodes.filter((name) => !new RegExp(`\\b${name}\\b`).test(code))).toEqual([]);
  });

  test('promised codes are read from docstrings only', ({ expect }) => {
    expect(thrownCodes("/**\n * @throws HelixFlowError A_B when NOT; C_D\n *   later.\n */\nthrow x('E_F');")).toEqual([
      'A_B',
      'C_D',
    ]);
    expect(tableUnder('## Errors\n\n| code |\n|---|\n| `A_B` | x |\n\n## Limits\n| `c` | 1 |\n', 'Errors')).toEqual([
      ['A_B', 'x'],
    ]);
  });
});

describe('the lock', () => {
  interface Locked {
    readonly version?: string;
    readonly optionalDependencies?: Readonly<Record<string, string>>;
  }
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> };

  test('names the packages of every platform, without which npm ci refuses it', ({ expect }) => {
    const optional = Object.values(packages).flatMap((locked) => Object.keys(locked.optionalDependencies ?? {}));
    expect(optional.length).toBeGreaterThan(50);
    const missing = optional.filter((name) => packages[`node_modules/${name}`]?.version === undefined);
    expect(missing, 'node scripts/lock-platforms.ts adds them').toEqual([]);
  });
});

describe('words', () => {
  test('no text names the machine that it was written on', ({ expect }) => {
    const foreign = texts.filter((file) => !file.startsWith('tests/'));
    expect(faultsIn(foreign, machineFaults)).toEqual([]);
  });

  test.for([
    ['a machine path', `const path = '${'/tm'}${'p'}/x';`],
    ['a workplace', `see ${'/wor'}${'k'}/main`],
    ['a home', `cd ${'/roo'}${'t'}/x`],
    ['a resolved host', `"resolved": "https://packages.example/x.tgz"`],
    ['a registry setting', 'registry=https://packages.example/'],
    ['a registry host', `https://${'regis'}${'try'}.example.org/x`],
  ])('refuses %s', ([, text], { expect }) => {
    expect(machineFaults('a.md', text ?? '')).not.toEqual([]);
  });

  test('lets through paths inside the repository', ({ expect }) => {
    expect(machineFaults('a.md', 'see `tests/tmp/x`, https://example.org/work/x and $TMPDIR/work/y')).toEqual([]);
  });

  test('documents name only files that exist', ({ expect }) => {
    const documents = find('*.md').concat(find('{protocol,ledger,models}/**/*.md'));
    const named = documents.flatMap((file) => namedFiles(read(file)));
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((file) => !existsSync(file))).toEqual([]);
    expect(namedFiles('see `protocol/nowhere.ts`')).toEqual(['protocol/nowhere.ts']);
  });
});
