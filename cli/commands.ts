/** Every command: its place, its options, and where its code is loaded from once it is called. */

import type { CommandContext, CommonConfig, RunCommand } from './command.ts';
import type { OptionTable } from './config/option.ts';
import { optionKeys, readConfig, type Sources } from './config/read.ts';
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

const allKeys = [commonOptions, ...Object.values(commandTables)].flatMap((table) => optionKeys(table));

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
    'gateway drain',
    'Ends the gateway on the data directory once its clients have their answers.',
    async () => (await import('./commands/gateway-drain.ts')).runGatewayDrain,
  ),
  define(
    'node drain',
    'Ends the node on the data directory: it takes nothing new, and what it cannot finish goes on elsewhere.',
    async () => (await import('./commands/node-drain.ts')).runNodeDrain,
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
    'mesh peers',
    'Shows who is connected to the daemon now.',
    async () => (await import('./commands/mesh-peers.ts')).runMeshPeers,
  ),
  define(
    'mesh members',
    'Lists the peers that were admitted to the mesh.',
    async () => (await import('./commands/mesh-members.ts')).runMeshMembers,
  ),
  define(
    'mesh ban',
    'Bans a peer from the whole mesh.',
    async () => (await import('./commands/mesh-ban.ts')).runMeshBan,
  ),
  define(
    'mesh unban',
    'Takes the bans of a peer back.',
    async () => (await import('./commands/mesh-ban.ts')).runMeshUnban,
  ),
  define(
    'mesh leave',
    'Forgets the mesh of the data directory.',
    async () => (await import('./commands/mesh-leave.ts')).runMeshLeave,
  ),
  define(
    'mesh backup',
    'Writes root key, issuer’s key and mesh record into one encrypted file.',
    async () => (await import('./commands/mesh-backup.ts')).runMeshBackup,
  ),
  define(
    'mesh restore',
    'Puts the keys of a backup into a data directory.',
    async () => (await import('./commands/mesh-restore.ts')).runMeshRestore,
  ),
  define(
    'mesh handover',
    'Hands an issuer’s authority to another gateway, in three steps.',
    async () => (await import('./commands/mesh-handover.ts')).runMeshHandover,
  ),
  define(
    'mesh unfreeze',
    'Lets an author whose feed has forked write again; takes the root key.',
    async () => (await import('./commands/mesh-unfreeze.ts')).runMeshUnfreeze,
  ),
  define(
    'keys create',
    'Prints a new API key, once.',
    async () => (await import('./commands/keys-create.ts')).runKeysCreate,
  ),
  define('keys ls', 'Lists the keys.', async () => (await import('./commands/keys-ls.ts')).runKeysList),
  define(
    'keys show',
    'Shows one key, without its text.',
    async () => (await import('./commands/keys-show.ts')).runKeysShow,
  ),
  define(
    'keys set',
    'Changes what a key may be used for.',
    async () => (await import('./commands/keys-set.ts')).runKeysSet,
  ),
  define(
    'keys rotate',
    'Prints a new key in the place of an old one, which stays good for a while.',
    async () => (await import('./commands/keys-rotate.ts')).runKeysRotate,
  ),
  define(
    'keys revoke',
    'Ends a key for good, at every gateway.',
    async () => (await import('./commands/keys-revoke.ts')).runKeysRevoke,
  ),
  define(
    'accounts create',
    'Opens an account: limits that several keys share.',
    async () => (await import('./commands/accounts-create.ts')).runAccountsCreate,
  ),
  define('accounts ls', 'Lists the accounts.', async () => (await import('./commands/accounts-ls.ts')).runAccountsList),
  define(
    'accounts set',
    'Changes the limits or the budget of an account.',
    async () => (await import('./commands/accounts-set.ts')).runAccountsSet,
  ),
  define(
    'accounts show',
    'Shows one account: its limits, what its budget has come to, and the leases on it.',
    async () => (await import('./commands/accounts-show.ts')).runAccountsShow,
  ),
  define(
    'accounts writeoff',
    'Gives up on a lease that its gateway does not close; what was not spent is free again.',
    async () => (await import('./commands/accounts-writeoff.ts')).runAccountsWriteOff,
  ),
  define(
    'accounts export',
    'Prints everything that this gateway can tell of an account, as JSON.',
    async () => (await import('./commands/accounts-export.ts')).runAccountsExport,
  ),
  define(
    'accounts erase',
    'Closes an account for good, and forgets whose it was.',
    async () => (await import('./commands/accounts-erase.ts')).runAccountsErase,
  ),
  define(
    'prices set',
    'Sets what a model costs, from now or from a moment to come.',
    async () => (await import('./commands/prices-set.ts')).runPricesSet,
  ),
  define('prices ls', 'Lists the prices.', async () => (await import('./commands/prices-ls.ts')).runPricesList),
  define(
    'usage',
    'Sums up what was used and what it cost, by account, key, model, node, day or gateway.',
    async () => (await import('./commands/usage.ts')).runUsage,
  ),
  define(
    'audit tail',
    'Shows the newest lines of the audit log.',
    async () => (await import('./commands/audit-tail.ts')).runAuditTail,
  ),
  define(
    'audit verify',
    'Checks that the audit log is as it was written; exits 6 and names the line when it is not.',
    async () => (await import('./commands/audit-verify.ts')).runAuditVerify,
  ),
  define(
    'ledger status',
    'Counts what is held of every author’s feed; forks and holes are named.',
    async () => (await import('./commands/ledger-status.ts')).runLedgerStatus,
  ),
  define(
    'ledger verify',
    'Checks every chain, signature, root and total of the feeds; exits 6 and names the entry that is wrong.',
    async () => (await import('./commands/ledger-verify.ts')).runLedgerVerify,
  ),
  define(
    'ledger tail',
    'Shows the newest attempts, as gateways state them and nodes sign them.',
    async () => (await import('./commands/ledger-tail.ts')).runLedgerTail,
  ),
  define(
    'ledger export',
    'Writes every attempt as it is settled: as CSV, JSON lines, or into PostgreSQL.',
    async () => (await import('./commands/ledger-export.ts')).runLedgerExport,
  ),
  define(
    'ledger reconcile',
    'Sums the feeds up anew and compares that with what was counted; exits 6 on a difference.',
    async () => (await import('./commands/ledger-reconcile.ts')).runLedgerReconcile,
  ),
  define(
    'ledger backup',
    'Writes all feeds into one file.',
    async () => (await import('./commands/ledger-backup.ts')).runLedgerBackup,
  ),
  define(
    'ledger restore',
    'Puts back what a directory has lost of the feeds of a backup; nothing that is there gives way.',
    async () => (await import('./commands/ledger-restore.ts')).runLedgerRestore,
  ),
  define(
    'status',
    'Shows what the daemon on the data directory is doing.',
    async () => (await import('./commands/status.ts')).runStatus,
  ),
  define(
    'why',
    'Tells where a request went and why: candidates, scores, refusals, and what happened.',
    async () => (await import('./commands/why.ts')).runWhy,
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
  accounts: 'Accounts of API keys: limits and budgets of all their keys together.',
  prices: 'What models cost.',
  audit: 'The audit log: who did what to whom.',
  ledger: 'The ledger: what was used, signed by those who used and served it.',
  sim: 'The simulator: the same code under virtual time.',
};

/** The generated part of `docs/cli.md`. */
export const commandTable = (): string =>
  [
    '| command | what it does |',
    '| --- | --- |',
    ...commands.map(({ path, about }) => `| \`helixflow ${path}\` | ${about} |`),
  ].join('\n');
