/** The fields of the admin API's inputs: each bounded, none taken that is not known. */

import { z } from 'zod';
import { budgetMaxMicro, budgetPeriods } from '../../ledger/money.ts';
import { keyGatewaysMax, keyModelsMax, rateMax } from '../../protocol/grants.ts';
import {
  type AccountId,
  isAccountId,
  isKeyId,
  isLeaseId,
  isOwnerId,
  isPeerId,
  type KeyId,
  type LeaseId,
  type OwnerId,
  type PeerId,
} from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { keyNodesMax, nodesShape, preferencesShape, preferShape, regionShape } from '../../protocol/preferences.ts';
import { dayMs, type Ms, ms, type UnixMs, unixMs } from '../../protocol/units.ts';

export const peerField = z.custom<PeerId>(isPeerId, 'expected a peer id').meta({ description: 'a peer id' });
export const keyField = z
  .custom<KeyId>(isKeyId, 'expected a key id: 16 hex characters')
  .meta({ description: 'a key id: 16 hex characters' });
export const accountField = z
  .custom<AccountId>(isAccountId, 'expected an account id')
  .meta({ description: 'an account id' });
export const ownerField = z
  .custom<OwnerId>(isOwnerId, 'expected 1 to 64 letters, digits, dots, dashes or underscores')
  .meta({ description: '1 to 64 letters, digits, dots, dashes or underscores' });

/** For people; no control characters, so that no terminal is surprised. */
export const nameField = z
  .string()
  .min(1)
  .max(64)
  .regex(/^\P{C}+$/u, 'expected text without control characters');

export const modelsField = z.array(z.string().min(1).max(limits.modelNameMaxChars)).max(keyModelsMax);
export const gatewaysField = z.array(peerField).max(keyGatewaysMax);

/** From now on, in milliseconds. */
export const durationField = (minMs: number, maxDays: number) =>
  z
    .int()
    .min(minMs)
    .max(maxDays * dayMs)
    .transform((value): Ms => ms(value));

const rate = z.int().min(1).max(rateMax).nullable().optional();
/** Limits to change: null removes one, absent leaves it as it is. */
export const limitsChange = z.strictObject({ rpm: rate, tpm: rate, concurrency: rate });

export const preferencesField = preferencesShape(keyNodesMax);
const nodesChange = nodesShape(keyNodesMax).nullable().optional();
/** Preferences to change: null removes one, absent leaves it as it is. */
export const preferencesChange = z.strictObject({
  prefer: preferShape.nullable().optional(),
  region: regionShape.nullable().optional(),
  nodes: z.strictObject({ allow: nodesChange, deny: nodesChange }).optional(),
});

/** A whole number, also as the text of a query. */
export const countField = (min: number, max: number) =>
  z
    .union([
      z.int(),
      z
        .string()
        .regex(/^\d{1,9}$/, 'expected a whole number')
        .transform(Number),
    ])
    .pipe(z.int().min(min).max(max))
    .meta({ description: `a whole number, ${min} to ${max}` });

const lastMs = 8_640_000_000_000_000;
/** A moment, also as the text of a query. */
export const momentField = z
  .union([
    z.int(),
    z
      .string()
      .regex(/^\d{1,16}$/, 'expected a moment in milliseconds')
      .transform(Number),
  ])
  .pipe(z.int().min(0).max(lastMs))
  .transform((value): UnixMs => unixMs(value))
  .meta({ description: 'a moment, in milliseconds since 1970' });

export const budgetField = z.strictObject({
  amountMicro: z.int().min(0).max(budgetMaxMicro),
  period: z.enum(budgetPeriods),
});
export const leaseField = z
  .custom<LeaseId>(isLeaseId, 'expected a lease id: 32 hex characters')
  .meta({ description: 'a lease id: 32 hex characters' });

export const noInput = z.strictObject({});
