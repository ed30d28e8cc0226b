/** The rules of the house as functions over paths and texts, so that each can be tried on planted violations. */

/** What files under `from` may import; the first row that matches a file counts, and what no pattern allows is refused. */
interface Zone {
  readonly from: RegExp;
  readonly may: readonly RegExp[];
  /** `pure` names the packages of deciders, `declared` those that package.json lists for use at run time. */
  readonly packages: 'pure' | 'declared';
  /** Names of the real world that this zone may use; deciders get theirs from ports. */
  readonly globals: 'all' | readonly string[];
}

const protocol = /^protocol\/(?!adapters\/)/;
const ledger = /^ledger\/(?!adapters\/)/;
const node = /^node\/(?!adapters\/|engines\/|hardware\.ts$)/;
const gateway = /^gateway\/(?!adapters\/|http\/)/;
const sim = /^sim\//;
const builtin = /^node:/;
const nothing: readonly string[] = [];

const edge = (from: RegExp, ...may: readonly RegExp[]): Zone => ({
  from,
  may: [...may, builtin],
  packages: 'declared',
  globals: 'all',
});
const decider = (from: RegExp, ...may: readonly RegExp[]): Zone => ({ from, may, packages: 'pure', globals: nothing });

/** The arrows of the house. Edges and exceptions stand above the folder they belong to. */
export const zones: readonly Zone[] = [
  edge(/^cli\//, /^(cli|protocol|ledger|node|gateway|sim)\//),
  edge(/^protocol\/adapters\//, /^protocol\//),
  edge(/^ledger\/adapters\//, /^ledger\//, protocol),
  edge(/^node\/(adapters\/|engines\/|hardware\.ts$)/, /^node\//, ledger, protocol),
  edge(/^gateway\/(adapters|http)\//, /^gateway\//, ledger, protocol),
  { from: /^protocol\/crypto\.ts$/, may: [protocol, /^node:crypto$/], packages: 'pure', globals: nothing },
  { ...decider(/^sim\/clock\.ts$/, sim, protocol), globals: ['setImmediate'] },
  { ...decider(/^sim\/tripwires\.ts$/, sim, protocol, builtin), globals: 'all' },
  decider(/^protocol\//, protocol),
  decider(/^ledger\//, ledger, protocol),
  decider(/^node\//, node, ledger, protocol),
  decider(/^gateway\//, gateway, ledger, protocol),
  decider(/^sim\//, sim, gateway, node, ledger, protocol),
];

/** Packages without a clock, chance or a world of their own. */
const purePackages: ReadonlySet<string> = new Set(['zod', 'multiformats', '@huggingface/jinja']);

/** Each pattern is one name that reaches the real world, or an order that differs between machines. */
const worldly: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['Date', /(?<![.\w$])Date\b(?!\s*[?:=])/],
  ['performance', /(?<![.\w$])performance\s*\./],
  ['Math.random', /\bMath\s*\.\s*random\b/],
  ['setTimeout', /(?<![.\w$])setTimeout\b/],
  ['setInterval', /(?<![.\w$])setInterval\b/],
  ['setImmediate', /(?<![.\w$])setImmediate\b/],
  ['AbortSignal.timeout', /\bAbortSignal\s*\.\s*timeout\b/],
  ['crypto.randomUUID', /\brandomUUID\b/],
  ['crypto.getRandomValues', /\bgetRandomValues\b/],
  ['crypto.subtle', /\bcrypto\s*\.\s*subtle\b/],
  ['fetch', /(?<![.\w$])fetch\s*\(/],
  [
    'process',
    /(?<![.\w$])process\s*\.\s*(?:env|argv|exit|on|once|nextTick|hrtime|pid|cwd|kill|stdout|stderr|stdin|memoryUsage|cpuUsage|uptime|platform|arch|version)/,
  ],
  ['globalThis', /\bglobalThis\b/],
  ['localeCompare', /\.\s*localeCompare\b/],
  ['toLocaleString', /\.\s*toLocale\w+/],
  ['Intl', /(?<![.\w$])Intl\s*\./],
  ['WeakRef', /(?<![.\w$])WeakRef\b/],
  ['FinalizationRegistry', /(?<![.\w$])FinalizationRegistry\b/],
  ['console', /(?<![.\w$])console\s*\./],
];

const lexeme = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g;

/** `text` without comments, so that no rule fires on prose. */
const withoutComments = (text: string): string =>
  text.replace(lexeme, (match) => (match.startsWith('/*') || match.startsWith('//') ? ' ' : match));

/** `text` without comments and plain strings; templates stay, since code lives in them. */
const codeOf = (text: string): string => text.replace(lexeme, (match) => (match.startsWith('`') ? match : "''"));

const fromClause = /^[ \t]*(?:import|export)\s[^;'"]*?\bfrom\s*['"]([^'"]+)['"]/gm;
const sideEffect = /^[ \t]*import\s*['"]([^'"]+)['"]/gm;
const dynamic = /\b(?:import|require|createRequire\([^)]*\))\s*\(\s*['"`]([^'"`]+)['"`]/g;

/** Everything that `text` imports or re-exports, type-only and dynamic forms included. */
function importsOf(text: string): string[] {
  const code = withoutComments(text);
  return [fromClause, sideEffect, dynamic].flatMap((form) => [...code.matchAll(form)].map(([, spec]) => spec ?? ''));
}

/** A relative import as a path in the repository; names of packages and built-ins as they are. */
const targetOf = (file: string, spec: string): string =>
  spec.startsWith('.') ? new URL(spec, `file:///${file}`).pathname.slice(1) : spec;

const packageOf = (spec: string): string =>
  spec
    .split('/')
    .slice(0, spec.startsWith('@') ? 2 : 1)
    .join('/');

const zoneOf = (file: string): Zone | undefined => zones.find((zone) => zone.from.test(file));

/**
 * Arrows: every import of `file` that its zone does not allow.
 * @param declared Packages that package.json lists for use at run time.
 */
export function importFaults(file: string, text: string, declared: ReadonlySet<string>): string[] {
  const zone = zoneOf(file);
  if (zone === undefined) return [`${file} lies outside the house`];
  const packages = zone.packages === 'pure' ? purePackages : declared;
  return importsOf(text)
    .map((spec) => targetOf(file, spec))
    .filter((to) => !zone.may.some((allowed) => allowed.test(to)))
    .filter((to) => /^(protocol|ledger|node|gateway|sim|cli|tests)\/|^node:/.test(to) || !packages.has(packageOf(to)))
    .map((to) => `${file} may not import ${to}`);
}

/** The real world in a decider: each banned name that `file` uses. */
export function worldFaults(file: string, text: string): string[] {
  const allowed = zoneOf(file)?.globals ?? 'all';
  if (allowed === 'all') return [];
  const code = codeOf(text);
  return worldly
    .filter(([name, pattern]) => !allowed.includes(name) && pattern.test(code))
    .map(([name]) => `${file} uses ${name}: take it from a port`);
}

const linesMax = 400;
/** A suite of sentences reads well at any length; files of this many are due for a second one all the same. */
const testLinesMax = 600;
/** Tables grow by a row a fact; splitting one would hide it. */
const longTables: ReadonlyMap<string, number> = new Map([['protocol/error-table.ts', 600]]);

/** Form: the opening sentence, the length, no default export, nothing left for later. */
export function formFaults(file: string, text: string): string[] {
  const faults: string[] = [];
  if (!/^(#!.*\n)?\/\*\*\s[\s\S]*?[.)]\s*\*\//.test(text))
    faults.push(`${file} does not begin with a sentence on what it owns`);
  const lines = text.split('\n').length - 1;
  if (lines > (longTables.get(file) ?? (file.startsWith('tests/') ? testLinesMax : linesMax)))
    faults.push(`${file} has ${lines} lines`);
  if (!/\.config\.ts$/.test(file) && /^export\s+default\b|\bas default\b/m.test(codeOf(text)))
    faults.push(`${file} has a default export`);
  const later = /\b(?:TO[D]O|FIX[M]E|XX[X])\b/.exec(text);
  if (later !== null) faults.push(`${file} says ${later[0]}`);
  return faults;
}

/** Tests: `expect` comes from the test context, so that concurrent tests cannot take each other's failures. */
export function testFaults(file: string, text: string): string[] {
  const code = withoutComments(text);
  const faults: string[] = [];
  if (/import\s*\{[^}]*(?<!type )\bexpect\b[^}]*\}\s*from\s*'vitest'/.test(code)) faults.push(`${file} imports expect`);
  if (/\b(?:test|it|describe)\s*\.\s*(?:only|skip|todo)\b/.test(code)) faults.push(`${file} leaves tests out`);
  return faults;
}

const exported = /^export\s+(?:async\s+)?(?:function|const|class|interface|type|abstract class)\s+\*?\s*([A-Za-z]\w*)/;

/** What a factory takes is explained where the factory is. */
const explainedElsewhere = /(?:Options|Deps|Ports|Events)$/;

/** Exports of `text` without a docstring; one above a block of lines without a gap counts for the whole block. */
export function undocumented(text: string): string[] {
  const missing: string[] = [];
  let covered = false;
  let previous = '';
  for (const line of text.split('\n')) {
    const name = exported.exec(line)?.[1];
    if (name !== undefined) {
      covered = /\*\/\s*$/.test(previous) || (covered && previous.trim() !== '');
      if (!covered && !explainedElsewhere.test(name)) missing.push(name);
    }
    previous = line;
  }
  return missing;
}

/** Codes that docstrings promise with `@throws`. */
export function thrownCodes(text: string): string[] {
  const comments = text.match(/\/\*\*[\s\S]*?\*\//g) ?? [];
  return comments
    .flatMap((comment) => comment.match(/@throws[\s\S]*?(?=\n\s*\*\s*@|\n\s*\*\s*\n|\*\/)/g) ?? [])
    .flatMap((clause) => clause.match(/\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b/g) ?? []);
}

/** First cells of the table under the heading `title`, in order; other cells beside them. */
export function tableUnder(markdown: string, title: string): (readonly string[])[] {
  const [, ...rest] = markdown.split(new RegExp(`^#+ ${title}$`, 'm'));
  const section = (rest[0] ?? '').split(/^#+ /m)[0] ?? '';
  return section
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim().replace(/^`([^`]*)`$/, '$1')),
    );
}

/** Names of one machine that would be wrong on every other. */
const machineWords: readonly RegExp[] = [
  /(?<![\w.~})*-])\/(?:work|tmp|root|home)\//,
  /\bC:\\Users\\/,
  /"resolved":\s*"https?:/,
  /^\s*(?:@[\w-]+:)?registry\s*=/m,
  /https?:\/\/[\w.-]*(?:registry|pypi|proxy|mirror|artifactory|nexus)[\w.-]*/,
];

/** Paths and hosts of the machine that `text` was written on. */
export const machineFaults = (file: string, text: string): string[] =>
  machineWords.flatMap((word) => {
    const found = word.exec(text);
    return found === null ? [] : [`${file} names ${found[0].trim()}`];
  });

/** Files of the repository that `markdown` names in backticks. */
export const namedFiles = (markdown: string): string[] =>
  [...markdown.matchAll(/`((?:protocol|ledger|node|gateway|sim|cli|models|tests|scripts)\/[\w./-]+\.\w+)`/g)].map(
    ([, path]) => path ?? '',
  );
