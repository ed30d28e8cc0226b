/** Options of the commands that make and change API keys and their accounts. */

import { z } from 'zod';
import { keyGatewaysMax, keyModelsMax, rateMax } from '../../protocol/grants.ts';
import { type AccountId, isAccountId, isPeerId, type PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { keyNodesMax, preferShape, regionShape, regionText } from '../../protocol/preferences.ts';
import { argument, option } from './option.ts';
import { duration, durationText, keyId, keyIdText, label, labelText } from './values.ts';

/** `*` alone is every model, which terms write as none named. */
const models = z
  .array(z.string().min(1).max(limits.modelNameMaxChars))
  .max(keyModelsMax)
  .transform((patterns) => (patterns.length === 1 && patterns[0] === '*' ? [] : patterns));
const modelsText = `at most ${keyModelsMax} model names, in which * stands for any text, separated by commas; * alone for every model`;
const rate = z.int().min(1).max(rateMax);
/** A limit to change; `none` takes it away. */
const rateChange = z.union([rate, z.literal('none').transform(() => null)]).optional();
const rateText = `an integer from 1 to ${rateMax}`;
export const accountId = z
  .string()
  .refine(isAccountId)
  .transform((value) => value as AccountId);

/** One row for each limit; `of` says whose, and its variables begin with `env`. */
const rates = <Schema extends z.ZodType>(
  schema: Schema,
  { of, env, expected, otherwise }: { of: string; env: string; expected: string; otherwise: string },
) => ({
  rpm: option(schema, {
    flag: '--rpm <count>',
    env: `${env}_RPM`,
    expected,
    otherwise,
    unit: 'requests/min',
    about: `Requests of the ${of} in any minute, at all gateways together.`,
  }),
  tpm: option(schema, {
    flag: '--tpm <count>',
    env: `${env}_TPM`,
    expected,
    otherwise,
    unit: 'tokens/min',
    about: `Prompt and completion tokens of the ${of} in any minute, at all gateways together.`,
  }),
  concurrency: option(schema, {
    flag: '--concurrency <count>',
    env: `${env}_CONCURRENCY`,
    expected,
    otherwise,
    unit: 'requests',
    about: `Requests of the ${of} under way at a time, at all gateways together.`,
  }),
});

export const newRates = (of: string, env: string) =>
  rates(rate.optional(), { of, env, expected: rateText, otherwise: 'no limit' });
export const changedRates = (of: string, env: string) =>
  rates(rateChange, { of, env: `${env}_SET`, expected: `${rateText}, or none`, otherwise: 'as it is' });

const nodesText = `1 to ${keyNodesMax} peer ids of nodes, separated by commas`;
const nodes = z
  .array(
    z
      .string()
      .refine(isPeerId)
      .transform((value) => value as PeerId),
  )
  .min(1)
  .max(keyNodesMax);
/** `word` takes a list away. */
const nodesChange = (word: string) => z.union([z.tuple([z.literal(word)]).transform(() => null), nodes]).optional();

const newPreferences = {
  prefer: option(preferShape.optional(), {
    flag: '--prefer <what>',
    env: 'HELIXFLOW_KEY_PREFER',
    otherwise: 'the soonest node',
    about: 'price: the cheapest of the nodes that are not much later than the best; latency: the soonest.',
  }),
  region: option(regionShape.optional(), {
    flag: '--region <name>',
    env: 'HELIXFLOW_KEY_REGION',
    expected: regionText,
    otherwise: 'any',
    about: 'Nodes of this region serve the key while any of them can.',
  }),
  allowNodes: option(nodes.optional(), {
    flag: '--allow-nodes <peers>',
    env: 'HELIXFLOW_KEY_ALLOW_NODES',
    expected: nodesText,
    otherwise: 'all',
    about: 'The only nodes that may serve the key; may be repeated.',
  }),
  denyNodes: option(nodes.optional(), {
    flag: '--deny-nodes <peers>',
    env: 'HELIXFLOW_KEY_DENY_NODES',
    expected: nodesText,
    otherwise: 'none',
    about: 'Nodes that never serve the key; may be repeated.',
  }),
};

const changedPreferences = {
  prefer: option(z.union([preferShape, z.literal('none').transform(() => null)]).optional(), {
    flag: '--prefer <what>',
    env: 'HELIXFLOW_KEY_SET_PREFER',
    expected: 'price, latency, or none',
    otherwise: 'as it is',
    about: 'What counts first among the nodes that can serve the key.',
  }),
  region: option(z.union([z.literal('any').transform(() => null), regionShape]).optional(), {
    flag: '--region <name>',
    env: 'HELIXFLOW_KEY_SET_REGION',
    expected: `${regionText}, or any`,
    otherwise: 'as it is',
    about: 'Nodes of this region serve the key while any of them can.',
  }),
  allowNodes: option(nodesChange('all'), {
    flag: '--allow-nodes <peers>',
    env: 'HELIXFLOW_KEY_SET_ALLOW_NODES',
    expected: `${nodesText}, or all`,
    otherwise: 'as they are',
    about: 'The only nodes that may serve the key from now on; may be repeated.',
  }),
  denyNodes: option(nodesChange('none'), {
    flag: '--deny-nodes <peers>',
    env: 'HELIXFLOW_KEY_SET_DENY_NODES',
    expected: `${nodesText}, or none`,
    otherwise: 'as they are',
    about: 'Nodes that never serve the key from now on; may be repeated.',
  }),
};

const key = argument(keyId, {
  flag: '<key>',
  expected: keyIdText,
  about: 'Which key; helixflow keys ls lists their ids.',
});

export const keysCreateOptions = {
  name: option(label.default('default'), {
    flag: '--name <name>',
    env: 'HELIXFLOW_KEY_NAME',
    expected: labelText,
    about: 'Name of the key, for people; it stays in this data directory.',
  }),
  account: option(accountId.optional(), {
    flag: '--account <account>',
    env: 'HELIXFLOW_KEY_ACCOUNT',
    expected: 'an account id; helixflow accounts ls lists them',
    otherwise: 'a new one, by the name of the key',
    about: 'Account that the key belongs to.',
  }),
  models: option(models.default([]), {
    flag: '--models <patterns>',
    env: 'HELIXFLOW_KEY_MODELS',
    expected: modelsText,
    otherwise: 'every model',
    about: 'Models that the key may use; may be repeated.',
  }),
  ...newRates('key', 'HELIXFLOW_KEY'),
  expires: option(duration(3_650).optional(), {
    flag: '--expires <duration>',
    env: 'HELIXFLOW_KEY_EXPIRES',
    expected: durationText(3_650),
    otherwise: 'never',
    about: 'How long the key is good for.',
  }),
  role: option(z.enum(['user', 'operator', 'admin']).default('user'), {
    flag: '--role <role>',
    env: 'HELIXFLOW_KEY_ROLE',
    about: 'user: the OpenAI API; operator: watches and bans; admin: everything, keys included.',
  }),
  gateways: option(
    z
      .array(
        z
          .string()
          .refine(isPeerId)
          .transform((value) => value as PeerId),
      )
      .max(keyGatewaysMax)
      .default([]),
    {
      flag: '--gateways <peers>',
      env: 'HELIXFLOW_KEY_GATEWAYS',
      expected: `at most ${keyGatewaysMax} peer ids of gateways, separated by commas`,
      otherwise: 'all; for an operator or admin the one that makes the key',
      about: 'The only gateways that take the key; may be repeated.',
    },
  ),
  ...newPreferences,
  strict: option(z.boolean().default(false), {
    flag: '--strict',
    env: 'HELIXFLOW_KEY_STRICT',
    about: 'Makes its new account strict: a gateway that is out of touch with the issuer refuses the key.',
  }),
} as const;

export const keysShowOptions = { key } as const;

/** Another name, or none: what `set` changes beside the ledger. */
export const renaming = (of: string, env: string) => ({
  name: option(label.optional(), {
    flag: '--name <name>',
    env: `${env}_SET_NAME`,
    expected: labelText,
    otherwise: 'as it is',
    about: `Another name of the ${of}, for people; it stays in this data directory.`,
  }),
  forgetName: option(z.boolean().default(false), {
    flag: '--forget-name',
    env: `${env}_FORGET_NAME`,
    about: `Erases the name of the ${of}; nothing else of it changes.`,
  }),
});

export const keysSetOptions = {
  key,
  ...renaming('key', 'HELIXFLOW_KEY'),
  models: option(models.optional(), {
    flag: '--models <patterns>',
    env: 'HELIXFLOW_KEY_SET_MODELS',
    expected: modelsText,
    otherwise: 'as they are',
    about: 'Models that the key may use from now on; may be repeated.',
  }),
  ...changedRates('key', 'HELIXFLOW_KEY'),
  expires: option(z.union([z.literal('never').transform(() => null), duration(3_650)]).optional(), {
    flag: '--expires <duration>',
    env: 'HELIXFLOW_KEY_SET_EXPIRES',
    expected: `${durationText(3_650)}, or never`,
    otherwise: 'as it is',
    about: 'How long the key is good for from now on.',
  }),
  ...changedPreferences,
} as const;

export const keysRotateOptions = {
  key,
  grace: option(duration(90, { min: '0s' }).prefault('24h'), {
    flag: '--grace <duration>',
    env: 'HELIXFLOW_KEY_GRACE',
    expected: durationText(90, { min: '0s' }),
    about: 'How long the old key stays good.',
  }),
} as const;

export const keysRevokeOptions = {
  key,
  cut: option(z.boolean().default(false), {
    flag: '--cut',
    env: 'HELIXFLOW_KEY_CUT',
    about: 'Also ends the requests that it has under way.',
  }),
} as const;
