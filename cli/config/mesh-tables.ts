/** Options of the commands that make and run a mesh. */

import { z } from 'zod';
import { type AuthorId, type EpochId, isAuthorId, isEpochId, isIssuerId, isPeerId } from '../../protocol/ids.ts';
import { inviteLifetimeMs, inviteUsesMax } from '../../protocol/invites.ts';
import { limits } from '../../protocol/limits.ts';
import { argument, option } from './option.ts';
import { duration, durationText, label, labelText, multiaddr, owner, ownerText } from './values.ts';

const text = z.string().min(1);
const is =
  <T extends string>(test: (value: unknown) => value is T) =>
  (value: string): boolean =>
    test(value);

const flag = (row: { readonly flag: string; readonly env: string; readonly about: string }) =>
  option(z.boolean().default(false), row);

/** Where a passphrase comes from: a file, a variable, or a question. */
const passphraseFile = (of: string, env: string, variable: string) =>
  option(text.optional(), {
    flag: '--passphrase-file <file>',
    env,
    otherwise: `the variable ${variable}, or a question on the terminal`,
    about: `File whose first line is the passphrase of the ${of}.`,
  });
const passphrase = (of: string, env: string) =>
  option(text.max(1_024).optional(), {
    flag: '',
    env,
    otherwise: 'a question on the terminal',
    about: `Passphrase of the ${of}; no flag, since arguments are visible to other users.`,
    secret: true,
  });

const rootPassphrase = {
  passphraseFile: passphraseFile('root key', 'HELIXFLOW_PASSPHRASE_FILE', 'HELIXFLOW_ROOT_PASSPHRASE'),
  rootPassphrase: passphrase('root key', 'HELIXFLOW_ROOT_PASSPHRASE'),
} as const;

const backupPassphrase = {
  passphraseFile: passphraseFile('backup', 'HELIXFLOW_BACKUP_PASSPHRASE_FILE', 'HELIXFLOW_BACKUP_PASSPHRASE'),
  backupPassphrase: passphrase('backup', 'HELIXFLOW_BACKUP_PASSPHRASE'),
} as const;

export const meshCreateOptions = {
  network: option(z.enum(['lan', 'public']).default('lan'), {
    flag: '--network <kind>',
    env: 'HELIXFLOW_NETWORK',
    about: 'lan: peers may be dialled on loopback and private addresses; public: they may not.',
  }),
  name: option(label.default('mesh'), {
    flag: '--name <name>',
    env: 'HELIXFLOW_MESH_NAME',
    expected: labelText,
    about: 'Name of the mesh, for people.',
  }),
  open: flag({
    flag: '--open',
    env: 'HELIXFLOW_MESH_OPEN',
    about: 'Lets invites admit any number of nodes of anybody; the command says what that costs.',
  }),
  passphrase: flag({
    flag: '--passphrase',
    env: 'HELIXFLOW_MESH_PASSPHRASE',
    about: 'Encrypts the root key with a passphrase; so does giving one.',
  }),
  ...rootPassphrase,
} as const;

export const meshInviteOptions = {
  role: option(z.enum(['node', 'gateway']), {
    flag: '--role <role>',
    env: 'HELIXFLOW_INVITE_ROLE',
    about: 'What the bearer may become; a gateway sees prompts and keys.',
  }),
  uses: option(z.union([z.int().min(0).max(inviteUsesMax), z.literal('unlimited').transform(() => 0)]).prefault(1), {
    flag: '--uses <count>',
    env: 'HELIXFLOW_INVITE_USES',
    expected: `an integer from 1 to ${inviteUsesMax}, or unlimited (nodes of an open mesh only)`,
    about: 'Peers that it may admit; each of them may use it again.',
  }),
  ttl: option(duration(365, { min: '1m' }).prefault(`${inviteLifetimeMs / 3_600_000}h`), {
    flag: '--ttl <duration>',
    env: 'HELIXFLOW_INVITE_TTL',
    expected: durationText(365, { min: '1m' }),
    about: 'How long the invite is good for.',
  }),
  gateway: option(z.array(multiaddr).max(limits.peerAddressesMax).default([]), {
    flag: '--gateway <multiaddr>',
    env: 'HELIXFLOW_INVITE_GATEWAY',
    expected: 'multiaddrs with a peer id, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…, separated by commas',
    otherwise: 'what the running gateway announces',
    about: 'Where the bearer reaches a gateway of the mesh; may be repeated.',
  }),
  owner: option(owner.optional(), {
    flag: '--owner <id>',
    env: 'HELIXFLOW_INVITE_OWNER',
    expected: ownerText,
    otherwise: 'local; on an open mesh each peer for itself',
    about: 'Who answers for the new peers.',
  }),
} as const;

const peer = argument(z.string().refine(is(isPeerId)), {
  flag: '<peer>',
  expected: 'a peer id, such as 12D3KooW…',
  about: 'Which peer; helixflow mesh members lists them.',
});
export const meshBanOptions = { peer } as const;
export const meshUnbanOptions = { peer } as const;

export const meshLeaveOptions = {
  force: flag({
    flag: '--force',
    env: 'HELIXFLOW_LEAVE_FORCE',
    about: 'Also destroys the root key and the issuer’s key that are here.',
  }),
} as const;

export const meshBackupOptions = {
  out: option(text, {
    flag: '--out <file>',
    env: 'HELIXFLOW_BACKUP_OUT',
    expected: 'a file that does not exist yet',
    about: 'Where the backup is written, for its owner alone.',
  }),
  plain: flag({
    flag: '--plain',
    env: 'HELIXFLOW_BACKUP_PLAIN',
    about: 'Writes the keys as they are: whoever reads the file has the mesh.',
  }),
  ...backupPassphrase,
} as const;

export const meshRestoreOptions = {
  from: option(text, {
    flag: '--from <file>',
    env: 'HELIXFLOW_RESTORE_FROM',
    expected: 'a file that helixflow mesh backup wrote',
    about: 'The backup.',
  }),
  ...backupPassphrase,
} as const;

export const meshHandoverOptions = {
  prepare: flag({
    flag: '--prepare',
    env: 'HELIXFLOW_HANDOVER_PREPARE',
    about: 'On the gateway that takes over: makes its issuer’s key and prints a request.',
  }),
  to: option(text.max(limits.tokenMaxChars).optional(), {
    flag: '--to <request>',
    env: 'HELIXFLOW_HANDOVER_TO',
    expected: 'what --prepare printed, or - for stdin',
    otherwise: 'none',
    about: 'Where the root key is: signs the request and prints a grant.',
  }),
  accept: option(text.max(2 * limits.tokenMaxChars).optional(), {
    flag: '--accept <grant>',
    env: 'HELIXFLOW_HANDOVER_ACCEPT',
    expected: 'what --to printed, or - for stdin',
    otherwise: 'none',
    about: 'On the gateway that takes over: installs the grant.',
  }),
  from: option(z.string().refine(is(isIssuerId)).optional(), {
    flag: '--from <issuer>',
    env: 'HELIXFLOW_HANDOVER_FROM',
    expected: 'an issuer id: 32 hex characters',
    otherwise: 'the issuer of this directory, or the only one that is known',
    about: 'With --to: the issuer whose authority goes over.',
  }),
  revoke: flag({
    flag: '--revoke',
    env: 'HELIXFLOW_HANDOVER_REVOKE',
    about: 'With --to: also takes the old issuer back; its keys, invites and memberships end with it.',
  }),
  ...rootPassphrase,
} as const;

export const meshUnfreezeOptions = {
  author: argument(
    z
      .string()
      .refine(is(isAuthorId))
      .transform((value) => value as AuthorId),
    {
      flag: '<author>',
      expected: '64 hex characters',
      about: 'The author that has forked; helixflow status names it.',
    },
  ),
  epoch: option(
    z
      .string()
      .refine(is(isEpochId))
      .transform((value) => value as EpochId)
      .optional(),
    {
      flag: '--epoch <id>',
      env: 'HELIXFLOW_UNFREEZE_EPOCH',
      expected: '32 hex characters',
      otherwise: 'the one that is known to have forked',
      about: 'The epoch that stays closed.',
    },
  ),
  ...rootPassphrase,
} as const;
