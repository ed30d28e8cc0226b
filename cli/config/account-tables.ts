/** Options of the commands about accounts, prices and usage. */

import { z } from 'zod';
import { budgetText, creditMicro, parseBudget, parseMicro } from '../../ledger/amounts.ts';
import { budgetMaxMicro } from '../../ledger/money.ts';
import { maxPriceMicro } from '../../ledger/price.ts';
import { usageDimensions } from '../../ledger/usage.ts';
import { isLeaseId, isPeerId, type LeaseId, type PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { accountId, changedRates, newRates, renaming } from './key-tables.ts';
import { argument, option } from './option.ts';
import { label, labelText, moment, momentText, span, spanText } from './values.ts';

/** `none` is null: no budget. */
const budget = z
  .string()
  .transform((text) => (text === 'none' ? null : parseBudget(text)))
  .refine((value) => value !== undefined)
  .transform((value) => value ?? null);
const budgetRow = (env: string, otherwise: string) =>
  option(budget.optional(), {
    flag: '--budget <amount/period>',
    env,
    expected: `${budgetText}, or none`,
    otherwise,
    about: 'What all keys of the account together may spend in each day or month (UTC), or in all, at all gateways.',
  });

/** Micro-credits from a decimal number of credits. */
const amount = (maxMicro: number) =>
  z
    .string()
    .transform((text) => parseMicro(text, maxMicro))
    .refine((value) => value !== undefined)
    .transform((value) => value as number);
const priceText = `a decimal number from 0 to ${maxPriceMicro / creditMicro}, at most six decimals`;

const strictAbout =
  'A gateway that is out of touch with the issuer refuses the keys of the account, and its budget is never overspent.';

export const accountsCreateOptions = {
  name: option(label, {
    flag: '--name <name>',
    env: 'HELIXFLOW_ACCOUNT_NAME',
    expected: labelText,
    about: 'Name of the account, for people; it stays in this data directory.',
  }),
  ...newRates('account', 'HELIXFLOW_ACCOUNT'),
  budget: budgetRow('HELIXFLOW_ACCOUNT_BUDGET', 'none'),
  strict: option(z.boolean().default(false), {
    flag: '--strict',
    env: 'HELIXFLOW_ACCOUNT_STRICT',
    negatable: true,
    about: strictAbout,
  }),
} as const;

const account = argument(accountId, {
  flag: '<account>',
  expected: 'an account id',
  about: 'Which account; helixflow accounts ls lists them.',
});

export const accountsSetOptions = {
  account,
  ...renaming('account', 'HELIXFLOW_ACCOUNT'),
  ...changedRates('account', 'HELIXFLOW_ACCOUNT'),
  budget: budgetRow('HELIXFLOW_ACCOUNT_SET_BUDGET', 'as it is'),
  strict: option(z.boolean().optional(), {
    flag: '--strict [answer]',
    env: 'HELIXFLOW_ACCOUNT_SET_STRICT',
    expected: 'yes or no, true or false; yes when nothing follows',
    otherwise: 'as it is',
    negatable: true,
    about: `${strictAbout} --no-strict takes it back.`,
  }),
} as const;

export const accountsShowOptions = { account } as const;
export const accountsExportOptions = { account } as const;

export const accountsEraseOptions = {
  account,
  yes: option(z.boolean().default(false), {
    flag: '--yes',
    env: 'HELIXFLOW_ACCOUNT_ERASE_YES',
    about: 'Does it; without, only what would go is shown. It cannot be taken back.',
  }),
} as const;

export const accountsWriteOffOptions = {
  lease: argument(
    z
      .string()
      .refine(isLeaseId)
      .transform((value) => value as LeaseId),
    {
      flag: '<lease>',
      expected: 'a lease id: 32 hex characters',
      about: 'Which lease; helixflow accounts show <account> lists those that are open.',
    },
  ),
  spent: option(amount(budgetMaxMicro).optional(), {
    flag: '--spent <amount>',
    env: 'HELIXFLOW_LEASE_SPENT',
    unit: 'credits',
    expected: `a decimal number of credits, at most six decimals`,
    otherwise: 'what the lines that are known here come to',
    about: 'What was spent from it; the rest is free again.',
  }),
} as const;

export const pricesSetOptions = {
  model: argument(z.string().min(1).max(limits.modelNameMaxChars), {
    flag: '<model>',
    about: 'A model by its whole name, or * for every model without a price of its own.',
  }),
  prompt: option(amount(maxPriceMicro), {
    flag: '--prompt <credits>',
    env: 'HELIXFLOW_PRICE_PROMPT',
    unit: 'credits per million tokens',
    expected: priceText,
    about: 'What a million prompt tokens cost.',
  }),
  completion: option(amount(maxPriceMicro), {
    flag: '--completion <credits>',
    env: 'HELIXFLOW_PRICE_COMPLETION',
    unit: 'credits per million tokens',
    expected: priceText,
    about: 'What a million completion tokens cost.',
  }),
  cached: option(amount(maxPriceMicro).optional(), {
    flag: '--cached <credits>',
    env: 'HELIXFLOW_PRICE_CACHED',
    unit: 'credits per million tokens',
    expected: priceText,
    otherwise: 'as much as --prompt',
    about: 'What a million prompt tokens cost that the node did not compute again.',
  }),
  node: option(
    z
      .string()
      .refine(isPeerId)
      .transform((value) => value as PeerId)
      .optional(),
    {
      flag: '--node <peer>',
      env: 'HELIXFLOW_PRICE_NODE',
      expected: 'the peer id of a node',
      otherwise: 'every node without a price of its own',
      about: 'The only node that the price is for.',
    },
  ),
  from: option(moment.optional(), {
    flag: '--from <time>',
    env: 'HELIXFLOW_PRICE_FROM',
    expected: momentText,
    otherwise: 'now',
    about: 'When it begins to count, by UTC.',
  }),
} as const;

export const usageOptions = {
  by: option(z.array(z.enum(usageDimensions)).max(usageDimensions.length).default(['account']), {
    flag: '--by <what>',
    env: 'HELIXFLOW_USAGE_BY',
    expected: `any of ${usageDimensions.join(', ')}, separated by commas`,
    about: 'What has rows of its own; may be repeated.',
  }),
  since: option(span.optional(), {
    flag: '--since <time>',
    env: 'HELIXFLOW_USAGE_SINCE',
    expected: spanText,
    otherwise: '30 days ago',
    about: 'The first day that counts, by UTC.',
  }),
  until: option(span.optional(), {
    flag: '--until <time>',
    env: 'HELIXFLOW_USAGE_UNTIL',
    expected: spanText,
    otherwise: 'today',
    about: 'The last day, or month, that counts.',
  }),
  account: option(accountId.optional(), {
    flag: '--account <account>',
    env: 'HELIXFLOW_USAGE_ACCOUNT',
    expected: 'an account id; helixflow accounts ls lists them',
    otherwise: 'all',
    about: 'Only what this account used.',
  }),
  model: option(z.string().min(1).max(limits.modelNameMaxChars).optional(), {
    flag: '--model <model>',
    env: 'HELIXFLOW_USAGE_MODEL',
    otherwise: 'all',
    about: 'Only what this model was used for.',
  }),
  csv: option(z.boolean().default(false), {
    flag: '--csv',
    env: 'HELIXFLOW_USAGE_CSV',
    about: 'Comma-separated values (RFC 4180) with a line of names, without the sum.',
  }),
} as const;
