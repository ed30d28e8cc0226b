/** Every command: its place, its options, and where its code is loaded from once it is called. */

import type { CommandContext, CommonConfig, RunCommand } from './command.ts';
import type { OptionTable } from './config/option.ts';
import { readConfig, type Sources } from './config/read.ts';
import { commandTables, commonOptions } from './config/tables.ts';

type Path = keyof typeof commandTables;

/** A command whose types have been put away. */
export interface CliCommand {
  /** `mesh create`: the words after `helixflow`. */
  readonly path: Path;
  readonly about: string;
  readonly table: OptionTable;
  /** Reads the values of its options, then runs. The result is the exit code. */
  run(sources: Sources, contextFor: (common: CommonConfig) => CommandContext): Promise<number>;
}

const allKeys = [commonOptions, ...Object.values(commandTables)].flatMap((table) => Object.keys(table));

function define<Name extends Path>(
  path: Name,
  about: string,
  load: () => Promise<RunCommand<(typeof commandTables)[Name]>>,
): CliCommand {
  const table = commandTables[path];
  return {
    path,
    about,
    table,
    run: async (sources, contextFor) => {
      const all: OptionTable = { ...commonOptions, ...table };
      const config = readConfig(all, sources, allKeys);
      const run = await load();
      return await run(config as never, contextFor(config as CommonConfig));
    },
  };
}

/** In the order of `--help`. */
export const commands: readonly CliCommand[] = [
  define(
    'up',
    'A mesh on this machine: one gateway, and one node with the embedded model.',
    async () => (await import('./commands/up.ts')).runUp,
  ),
  define(
    'gateway',
    'The door for clients: answers the OpenAI API and finds nodes to serve it.',
    async () => (await import('./commands/gateway.ts')).runGatewayCommand,
  ),
  define(
    'node',
    'Serves a model to the gateways of a mesh.',
    async () => (await import('./commands/node.ts')).runNodeCommand,
  ),
  define(
    'mesh create',
    'Makes a new mesh in the data directory.',
    async () => (await import('./commands/mesh-create.ts')).runMeshCreate,
  ),
  define(
    'mesh show',
    'Shows the mesh that the data directory belongs to.',
    async () => (await import('./commands/mesh-show.ts')).runMeshShow,
  ),
  define(
    'mesh invite',
    'Prints a token that lets a node or a gateway join.',
    async () => (await import('./commands/mesh-invite.ts')).runMeshInvite,
  ),
  define(
    'keys create',
    'Prints a new API key, once.',
    async () => (await import('./commands/keys-create.ts')).runKeysCreate,
  ),
  define(
    'status',
    'Shows what the daemon on the data directory is doing.',
    async () => (await import('./commands/status.ts')).runStatus,
  ),
  define(
    'sim run',
    'Plays a scenario under virtual time; exits 6 when it finds a violation.',
    async () => (await import('./commands/sim-run.ts')).runSim,
  ),
  define('version', 'Shows the version.', async () => (await import('./commands/version.ts')).runVersion),
];

/** What the groups of commands are about. */
export const groups: Readonly<Record<string, string>> = {
  mesh: 'Meshes: who belongs together.',
  keys: 'API keys of clients.',
  sim: 'The simulator: the same code under virtual time.',
};

/** The generated part of `docs/cli.md`. */
export const commandTable = (): string =>
  [
    '| command | what it does |',
    '| --- | --- |',
    ...commands.map(({ path, about }) => `| \`helixflow ${path}\` | ${about} |`),
  ].join('\n');
