/** A gateway and its nodes as real processes, with clients: what tests of whole meshes share. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI, { type ClientOptions } from 'openai';
import { callOperation } from '../../cli/control-client.ts';
import type { NodeStatus } from '../../gateway/gateway.ts';
import type { Trace } from '../../gateway/route/trace.ts';
import type { RequestId } from '../../protocol/ids.ts';
import { type Daemon, Daemons, until } from './daemons.ts';

interface MeshPlan {
  /** Options of `helixflow gateway`. */
  readonly gateway?: readonly string[];
  /** Options of each `helixflow node`, by its name. */
  readonly nodes: Readonly<Record<string, readonly string[]>>;
}

/** What is known of an answer's making, beside OpenAI's fields. */
export interface Provenance {
  readonly nodes?: readonly string[];
  readonly attempts?: number;
  readonly splices: number;
}

/** What HelixFlow says of an answer in its body, or in a chunk of it. */
export const provenanceOf = (part: object): Provenance | undefined =>
  (part as { readonly helixflow?: Provenance }).helixflow;

export const peerOf = (daemon: Daemon): string => String(daemon.ready['peerId']);

/** The processes that a process has started itself. */
const childrenOf = (pid: number | undefined): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return new RegExp(`^PPid:\\t${pid}$`, 'm').test(readFileSync(`/proc/${name}/status`, 'utf8'));
      } catch (error) {
        // It has ended since it was listed.
        if (['ENOENT', 'ESRCH'].includes(String((error as NodeJS.ErrnoException).code))) return false;
        throw error;
      }
    })
    .map(Number);

/** Holds a node's engine still, while the node itself goes on. Disposing it lets the engine go on, which ends with its node. */
export function holdEngine(node: Daemon): Disposable {
  const engines = childrenOf(node.child.pid);
  if (engines.length === 0) throw new Error('the node has no process for its engine');
  const tell = (signal: NodeJS.Signals): void => {
    for (const pid of engines) process.kill(pid, signal);
  };
  tell('SIGSTOP');
  return { [Symbol.dispose]: () => tell('SIGCONT') };
}

export class ProcessMesh implements AsyncDisposable {
  readonly daemons: Daemons;
  readonly gateway: Daemon;
  readonly #plan: MeshPlan;
  readonly #nodes = new Map<string, Daemon>();

  private constructor(daemons: Daemons, gateway: Daemon, plan: MeshPlan) {
    this.daemons = daemons;
    this.gateway = gateway;
    this.#plan = plan;
  }

  /** Resolves when the gateway has the offer of every node. */
  static async start(plan: MeshPlan): Promise<ProcessMesh> {
    await using opened = new AsyncDisposableStack();
    const daemons = opened.use(new Daemons());
    await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
    const gateway = await daemons.start('gateway', ['gateway', '--port', '0', ...(plan.gateway ?? [])]);
    const mesh = new ProcessMesh(daemons, gateway, plan);
    const token = await mesh.invite('node', Object.keys(plan.nodes).length);
    await Promise.all(Object.keys(plan.nodes).map((name) => mesh.#startNode(name, token)));
    opened.move();
    return mesh;
  }

  /** A command on the gateway's data directory. */
  at(...words: string[]): Promise<Record<string, unknown>> {
    return this.daemons.json([...words, '--data-dir', this.gateway.dir]);
  }

  async invite(role: 'gateway' | 'node', uses = 1): Promise<string> {
    return String((await this.at('mesh', 'invite', '--role', role, '--uses', String(uses)))['token']);
  }

  /** A client with a key of its own, which tries nothing twice. */
  async client(keyOptions: readonly string[] = [], options: ClientOptions = {}): Promise<OpenAI> {
    const { key } = await this.at('keys', 'create', ...keyOptions);
    return new OpenAI({
      baseURL: String(this.gateway.ready['baseUrl']),
      apiKey: String(key),
      maxRetries: 0,
      ...options,
    });
  }

  node(name: string): Daemon {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new Error(`there is no node ${name}`);
    return node;
  }

  /** What the gateway says of this node. */
  async row(name: string): Promise<NodeStatus | undefined> {
    const { nodes } = (await this.gateway.status())['gateway'] as { readonly nodes: readonly NodeStatus[] };
    return nodes.find(({ peer }) => peer === peerOf(this.node(name)));
  }

  /** Starts what has ended; resolves when the gateway hears every node. */
  async mend(): Promise<void> {
    for (const [name, { child }] of this.#nodes) {
      if (child.exitCode !== null || child.signalCode !== null) await this.#startNode(name, '');
    }
    for (const name of this.#nodes.keys()) {
      await until(async () => ((await this.row(name))?.responsive ? true : undefined), 15_000);
    }
  }

  /** @param answer The id of an answer. */
  story(answer: string): Promise<Trace> {
    const request = answer.replace('chatcmpl-', '') as RequestId;
    return callOperation(join(this.gateway.dir, 'control.sock'), 'requests.why', { request });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemons[Symbol.asyncDispose]();
  }

  async #startNode(name: string, token: string): Promise<void> {
    const options = this.#plan.nodes[name] ?? [];
    const join = token === '' ? [] : ['--join', '-'];
    this.#nodes.set(name, await this.daemons.start(name, ['node', ...join, ...options], token));
  }
}
