/** What work costs: set by the issuer, seen by everyone. */

import { z } from 'zod';
import { maxPriceMicro, type PriceRule } from '../../ledger/price.ts';
import { fromHex } from '../../protocol/crypto.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { IssuerId, PeerId, PriceId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { UnixMs } from '../../protocol/units.ts';
import { momentField, peerField } from './fields.ts';
import { pageInput, pageOf } from './lists.ts';
import { actorOf, admins, deskFor, operation, watchers } from './operation.ts';
import { recordsOf } from './records.ts';

/** What a million tokens cost, in micro-credits. */
export interface PriceView {
  readonly price: PriceId;
  /** `*` for every model that has no price of its own. */
  readonly model: string;
  /** Absent: at every node that has no price of its own. */
  readonly node?: PeerId;
  readonly prompt: number;
  readonly cached: number;
  readonly completion: number;
  readonly fromMs: UnixMs;
  /** Absent in the answer to whoever sets it. */
  readonly issuer?: IssuerId;
}

const amount = z.int().min(0).max(maxPriceMicro);

const priceView = ({ id, by, ...rule }: PriceRule): PriceView => ({
  price: id,
  ...rule,
  issuer: issuerIdOf(fromHex(by)),
});

export const priceOperations = {
  'prices.set': operation({
    method: 'POST',
    path: 'prices',
    roles: admins,
    about:
      'Sets what a million tokens cost from fromMs (or now) on, in micro-credits; cached prompt tokens cost what fresh ones do unless it is said.',
    input: z.strictObject({
      model: z.string().min(1).max(limits.modelNameMaxChars),
      node: peerField.optional(),
      prompt: amount,
      cached: amount.optional(),
      completion: amount,
      fromMs: momentField.optional(),
    }),
    run: async (context, { model, node, prompt, cached = prompt, completion, fromMs }, caller): Promise<PriceView> => {
      const request = { model, ...(node === undefined ? {} : { node }), prompt, cached, completion, fromMs };
      const { kind: _, id, ...price } = await deskFor(context, caller).setPrice(request, actorOf(caller));
      return { price: id, ...price };
    },
  }),
  'prices.list': operation({
    method: 'GET',
    path: 'prices',
    roles: watchers,
    about: 'Lists every price that was set, also those that others took the place of.',
    input: pageInput,
    run: (context, page) => {
      const { data, hasMore } = pageOf(recordsOf(context).prices.list(), ({ id }) => id, page);
      return { data: data.map(priceView), hasMore };
    },
  }),
};
