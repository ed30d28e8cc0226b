/**
 * Completes package-lock.json with the packages of other platforms.
 *
 * npm leaves an optional package out of the lock when the registry it asked does not serve it, and `npm ci` then refuses
 * that lock. Run after `npm install` against a registry that has one platform only; a test tells when it is needed.
 */

import { readFileSync, writeFileSync } from 'node:fs';

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  readonly license?: string;
  readonly engines?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
interface Lock {
  packages: Record<string, LockedPackage>;
}

const systems = ['android', 'darwin', 'freebsd', 'linux', 'openharmony', 'win32'];
const processors = ['arm', 'arm64', 'ia32', 'ppc64', 'riscv64', 's390x', 'x64'];
const aliases: Readonly<Record<string, string>> = { mac: 'darwin', win: 'win32' };

/** What the names of such packages say: `binding-linux-arm64-musl`. */
function platformOf(name: string): { readonly os: string[]; readonly cpu: string[]; readonly libc?: string[] } {
  const words = name.split(/[/-]/).map((word) => aliases[word] ?? word);
  const os = systems.filter((system) => words.includes(system));
  const cpu = processors.filter((processor) => words.includes(processor));
  if (os.length !== 1 || cpu.length !== 1) throw new Error(`${name} does not name its platform`);
  const libc = words.some((word) => word.startsWith('musl')) ? ['musl'] : ['glibc'];
  return os[0] === 'linux' ? { os, cpu, libc } : { os, cpu };
}

const file = 'package-lock.json';
const lock = JSON.parse(readFileSync(file, 'utf8')) as Lock;
const added: Record<string, LockedPackage> = {};
for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`;
    if (place in lock.packages || !/^\d/.test(version)) continue;
    const { dev, license, engines } = parent;
    added[place] = {
      version,
      ...platformOf(name),
      ...(dev === undefined ? {} : { dev }),
      ...(license === undefined ? {} : { license }),
      ...(engines === undefined ? {} : { engines }),
      ...{ optional: true },
    };
  }
}
const entries = Object.entries({ ...lock.packages, ...added });
lock.packages = Object.fromEntries(entries.sort(([a], [b]) => a.localeCompare(b, 'en')));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${Object.keys(added).length} packages added`);
