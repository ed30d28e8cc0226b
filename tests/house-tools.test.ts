/** The tools of `npm run check`, as this repository sets them up, are seen to refuse what they are there to refuse. */

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempDisposableSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'vitest';

const root = process.cwd();
const tool = (name: string): string => join(root, 'node_modules/.bin', name);

/** A repository of its own with our configuration and `files`; removed at the end of its scope. */
function plant(files: Readonly<Record<string, string>>) {
  const folder = mkdtempDisposableSync(join(tmpdir(), 'helixflow-house-'));
  for (const name of ['biome.json', 'knip.json', 'tsconfig.json']) cpSync(join(root, name), join(folder.path, name));
  symlinkSync(join(root, 'node_modules'), join(folder.path, 'node_modules'));
  const manifest = {
    name: 'planted',
    type: 'module',
    bin: 'cli/helixflow.mjs',
    dependencies: { zod: '4', cborg: '6' },
  };
  const all = { 'package.json': JSON.stringify(manifest), ...files };
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(join(folder.path, path)), { recursive: true });
    writeFileSync(join(folder.path, path), text);
  }
  const run = (name: string, ...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync(tool(name), args, { cwd: folder.path, encoding: 'utf8' });
    return { status, output: `${stdout}${stderr}` };
  };
  return { run, [Symbol.dispose]: () => folder.remove() };
}

describe('Biome', () => {
  const long = `export function long(): void {\n${"  run('x');\n".repeat(81)}}\n`;
  const planted: readonly [rule: string, file: string, text: string][] = [
    ['noRestrictedGlobals', 'ledger/a.ts', 'export const now = Date.now();\n'],
    ['noRestrictedGlobals', 'node/a.ts', 'export const later = setTimeout(run, 1);\n'],
    ['noRestrictedImports', 'ledger/a.ts', "import { readFileSync } from 'node:fs';\n"],
    ['noRestrictedImports', 'gateway/a.ts', "import { x } from '../protocol/adapters/clock.ts';\n"],
    ['noFloatingPromises', 'node/a.ts', 'async function f(): Promise<void> {}\nf();\n'],
    [
      'useExhaustiveSwitchCases',
      'node/a.ts',
      "export function f(x: 'a' | 'b'): void {\n  switch (x) {\n    case 'a':\n      run();\n  }\n}\n",
    ],
    ['noExcessiveLinesPerFunction', 'node/a.ts', long],
    ['useMaxParams', 'node/a.ts', 'export const f = (a: 1, b: 1, c: 1, d: 1, e: 1): number => a + b + c + d + e;\n'],
    ['noBarrelFile', 'node/a.ts', "export { serve } from './serve.ts';\nexport { admit } from './admission.ts';\n"],
    ['noDefaultExport', 'node/a.ts', 'export default 1;\n'],
    ['noProcessEnv', 'gateway/http/a.ts', "export const home = process.env['HOME'];\n"],
    ['useFilenamingConvention', 'node/NotThis.ts', 'export const x = 1;\n'],
    ['noConsole', 'gateway/http/a.ts', "console.log('x');\n"],
    ['noSkippedTests', 'tests/a.test.ts', "test.skip('x', () => {});\n"],
    ['noImportCycles', 'node/a.ts', "import { b } from './b.ts';\nexport const a = (): number => b();\n"],
  ];
  test.for(planted)('refuses by %s: %s', ([rule, file, text], { expect }) => {
    using tree = plant({
      [file]: text,
      'node/b.ts': "import { a } from './a.ts';\nexport const b = (): number => a();\n",
    });
    const { status, output } = tree.run('biome', 'lint', file);
    expect(output).toContain(rule);
    expect(status).toBe(1);
  });

  test('lets edges use the real world, and the CLI its environment', ({ expect }) => {
    using tree = plant({
      'protocol/adapters/a.ts': "import { hostname } from 'node:os';\nexport const x = [Date.now(), hostname()];\n",
      'cli/a.ts': "console.log(process.env['HOME']);\n",
    });
    expect(tree.run('biome', 'lint', '.')).toMatchObject({ status: 0 });
  });
});

describe('knip', () => {
  const used = '#!/usr/bin/env node\nimport { x } from "../node/used.ts";\nconsole.log(x);\n';
  test('finds unused files, exports and dependencies', ({ expect }) => {
    using tree = plant({
      'cli/helixflow.mjs': used,
      'node/used.ts': "import { z } from 'zod';\nexport const x = z;\nexport const unusedExport = 1;\n",
      'node/unused-file.ts': 'export const y = 1;\n',
    });
    const { status, output } = tree.run('knip', '--no-progress');
    expect(status).toBe(1);
    expect(output).toMatch(/node\/unused-file\.ts/);
    expect(output).toMatch(/unusedExport/);
    expect(output).toMatch(/cborg/);
  });
});

describe('tsc', () => {
  test('refuses syntax that Node cannot strip, and unchecked access', ({ expect }) => {
    using tree = plant({
      'node/a.ts': 'export enum A { B }\n',
      'node/b.ts': 'export const first = (list: readonly number[]): number => list[0];\n',
    });
    const { status, output } = tree.run('tsc');
    expect(status).not.toBe(0);
    expect(output).toMatch(/a\.ts.*TS1294/);
    expect(output).toMatch(/b\.ts.*TS2322/);
  });
});
