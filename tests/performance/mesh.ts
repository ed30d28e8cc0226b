/** Meshes of real processes for a bench: one gateway, and nodes that come and go. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { callOperation } from '../../cli/control-client.ts';
import type { Trace } from '../../gateway/route/trace.ts';
import type { RequestId } from '../../protocol/ids.ts';
import { type Child, start } from './processes.ts';

const cli = 'cli/helixflow.mjs';

/** A node process that can be killed, and started again as the same peer. */
export interface BenchNode {
  readonly name: string;
  readonly child: Child;
  readonly peer: string;
}

export interface BenchMesh extends AsyncDisposable {
  readonly gateway: Child;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly nodes: readonly BenchNode[];
  /** A key of an account of its own. */
  keyFor(account: string): Promise<Readonly<Record<string, string>>>;
  /** Starts node `at` again, when its process has ended. */
  restart(at: number): Promise<void>;
  why(request: string): Promise<Trace>;
  /** Of the newest requests. */
  stories(): Promise<readonly Trace[]>;
}

export async function runCli(args: readonly string[]): Promise<Record<string, unknown>> {
  await using child = await start([cli, ...args, '--json']);
  return JSON.parse(child.line) as Record<string, unknown>;
}

interface MeshPlan {
  readonly nodes: number;
  /** Of `helixflow node`, for each by its number. */
  readonly node: (at: number) => readonly string[];
  readonly gateway?: readonly string[];
}

/** Starts all of it; resolves when the gateway has every node's offer. */
export async function startBenchMesh(dir: string, plan: MeshPlan): Promise<BenchMesh> {
  const data = join(dir, 'gateway');
  await runCli(['mesh', 'create', '--data-dir', data]);
  const flags = ['--data-dir', data, '--port', '0', '--log-level', 'warn', '--json'];
  const gateway = await start([cli, 'gateway', ...flags, ...(plan.gateway ?? [])]);
  const { baseUrl } = JSON.parse(gateway.line) as { baseUrl: string };
  const invite = await runCli(['mesh', 'invite', '--role', 'node', '--uses', '64', '--data-dir', data]);
  const { key } = await runCli(['keys', 'create', '--data-dir', data, '--name', 'bench']);
  const startNode = async (at: number): Promise<BenchNode> => {
    const name = `node-${at}`;
    const own = ['--data-dir', join(dir, name), '--join', '-', '--log-level', 'error', '--json'];
    const child = await start([cli, 'node', ...own, ...plan.node(at)], String(invite['token']));
    return { name, child, peer: (JSON.parse(child.line) as { peerId: string }).peerId };
  };
  const nodes = await Promise.all(Array.from({ length: plan.nodes }, (_, at) => startNode(at)));
  return {
    gateway,
    url: `${baseUrl}/chat/completions`,
    headers: { authorization: `Bearer ${String(key)}` },
    nodes,
    keyFor: async (account) => {
      const { id } = await runCli(['accounts', 'create', '--data-dir', data, '--name', account]);
      const of = ['--account', String(id)];
      const own = await runCli(['keys', 'create', '--data-dir', data, '--name', account, ...of]);
      return { authorization: `Bearer ${String(own['key'])}` };
    },
    restart: async (at) => {
      nodes[at] = await startNode(at);
    },
    why: (request) => callOperation(join(data, 'control.sock'), 'requests.why', { request: request as RequestId }),
    stories: () => callOperation(join(data, 'control.sock'), 'requests.list', { limit: 1_000 }),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(nodes.map(({ child }) => child[Symbol.asyncDispose]()));
      await gateway[Symbol.asyncDispose]();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
