/** The fields of the admin API's inputs: each bounded, none taken that is not known. */

import { z } from 'zod';
import { keyGatewaysMax, keyModelsMax, rateMax } from '../../protocol/grants.ts';
import {
  type AccountId,
  isAccountId,
  isKeyId,
  isOwnerId,
  isPeerId,
  type KeyId,
  type OwnerId,
  type PeerId,
} from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { type Ms, ms } from '../../protocol/units.ts';

const dayMs = 86_400_000;

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

export const noInput = z.strictObject({});
