/** Real `helixflow` processes for end-to-end tests: each with a data directory of its own, ended by id. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const entry = join(root, 'cli/helixflow.mjs');
const readyMaxMs = 30_000;

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const collect = (child: ChildProcess): { stdout: string; stderr: string } => {
  const text = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text.stdout += chunk;
  });
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    text.stderr += chunk;
  });
  return text;
};

/** A running daemon, ready; disposing it kills it if it still runs. */
export interface Daemon extends AsyncDisposable {
  readonly ready: Record<string, unknown>;
  readonly dir: string;
  readonly child: ChildProcess;
  readonly output: { readonly stdout: string; readonly stderr: string };
  kill(signal: NodeJS.Signals): void;
  exited(): Promise<number | null>;
  /** What `helixflow status --json` prints, asked of the control socket itself. */
  status(): Promise<Record<string, unknown>>;
}

const ask = (socketPath: string, path: string): Promise<Record<string, unknown>> =>
  new Promise((resolve, reject) => {
    http
      .get({ socketPath, path }, async (response) => {
        let text = '';
        for await (const chunk of response.setEncoding('utf8')) text += chunk;
        resolve(JSON.parse(text) as Record<string, unknown>);
      })
      .on('error', reject);
  });

/** A folder of data directories and the processes on them; all of them end with it. */
export class Daemons implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'hx-'));
  readonly #running: Daemon[] = [];

  path(name: string): string {
    return join(this.dir, name);
  }

  /** Runs a command to its end. */
  async run(args: readonly string[], input = '', env: Readonly<Record<string, string>> = {}): Promise<Finished> {
    const child = spawn(process.execPath, [entry, ...args], { cwd: root, env: { ...process.env, ...env } });
    const text = collect(child);
    child.stdin.end(input);
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    return { code, ...text };
  }

  /** Runs a command with `--json` and reads its one line. */
  async json(
    args: readonly string[],
    input = '',
    env: Readonly<Record<string, string>> = {},
  ): Promise<Record<string, unknown>> {
    const { code, stdout, stderr } = await this.run([...args, '--json'], input, env);
    if (code !== 0) throw new Error(`helixflow ${args.join(' ')} exited ${code}: ${stderr}`);
    return JSON.parse(stdout) as Record<string, unknown>;
  }

  /** Starts a daemon with `--json` and waits for its ready line. */
  async start(name: string, args: readonly string[], input = ''): Promise<Daemon> {
    const dir = this.path(name);
    const child = spawn(process.execPath, [entry, ...args, '--data-dir', dir, '--json'], { cwd: root });
    const output = collect(child);
    child.stdin.end(input);
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    const ready = await this.#readyLine(child, output, args);
    const daemon: Daemon = {
      ready,
      dir,
      child,
      output,
      kill: (signal) => void child.kill(signal),
      exited: () => exit,
      status: () => ask(join(dir, 'control.sock'), '/status'),
      [Symbol.asyncDispose]: async () => {
        daemon.kill('SIGCONT');
        if (child.exitCode === null && child.signalCode === null) daemon.kill('SIGKILL');
        await exit;
      },
    };
    this.#running.push(daemon);
    return daemon;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#running) await daemon[Symbol.asyncDispose]();
    rmSync(this.dir, { recursive: true, force: true });
  }

  #readyLine(
    child: ChildProcess,
    output: { stdout: string; stderr: string },
    args: readonly string[],
  ): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => {
        child.kill('SIGKILL');
        reject(new Error(`helixflow ${args.join(' ')}: ${why}\n${output.stderr.slice(-4_000)}`));
      };
      const timer = setTimeout(() => fail('not ready in time'), readyMaxMs);
      child.once('close', (code) => {
        clearTimeout(timer);
        reject(
          new Error(`helixflow ${args.join(' ')} exited ${code} before it was ready\n${output.stderr.slice(-4_000)}`),
        );
      });
      child.stdout?.on('data', () => {
        const end = output.stdout.indexOf('\n');
        if (end < 0) return;
        clearTimeout(timer);
        resolve(JSON.parse(output.stdout.slice(0, end)) as Record<string, unknown>);
      });
    });
  }
}

/** The code of the error that a command with `--json` told on stderr. */
export const errorCode = ({ stderr }: Finished): unknown =>
  stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .find(({ event }) => event === 'error')?.['code'];

/** Waits until `condition` holds; fails after `maxMs`. */
export async function until<T>(condition: () => Promise<T | undefined> | T | undefined, maxMs = 10_000): Promise<T> {
  const deadline = performance.now() + maxMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`nothing happened within ${maxMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
