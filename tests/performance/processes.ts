/** Child processes of a bench: started, read line by line, their CPU time taken from the kernel, ended by id. */

import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** Of Linux's /proc: how many of its ticks make a second. */
const ticksPerSecond = 100;

export interface Child extends AsyncDisposable {
  readonly pid: number;
  /** User and system time so far, in microseconds. Linux only. */
  cpuUs(): number;
  /** Resident memory, in bytes. Linux only. */
  residentBytes(): number;
}

async function firstLine(child: ChildProcess, name: string): Promise<string> {
  if (child.stdout === null) throw new Error(`${name} has no output`);
  for await (const line of createInterface({ input: child.stdout })) return line;
  throw new Error(`${name} ended before it was ready`);
}

/** Runs a script of this repository; resolves with its first line of output. */
export async function start(args: readonly string[], input = ''): Promise<Child & { readonly line: string }> {
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin?.end(input);
  const line = await firstLine(child, args.join(' '));
  child.stdout?.resume();
  const { pid } = child;
  if (pid === undefined) throw new Error(`${args[0]} did not start`);
  return {
    pid,
    line,
    cpuUs: () => {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1e6;
    },
    residentBytes: () => {
      const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      return Number(kilobytes) * 1_024;
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await exited;
      clearTimeout(force);
    },
  };
}
