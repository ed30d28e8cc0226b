/** What an upstream server says it serves, as models of ours. */

import { z } from 'zod';
import { sha256Hex } from '../../../protocol/crypto.ts';
import type { ModelDigest } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import type { EngineModel } from '../../../protocol/ports.ts';
import { upstreamFault } from './http.ts';

const contextTokensMax = 100_000_000;
const ownerMaxChars = 40;

/** Servers name the context length in different ways, or not at all. */
const listed = z.object({
  id: z.string().min(1),
  owned_by: z.string().nullish().catch(undefined),
  max_model_len: z.int().min(1).max(contextTokensMax).nullish().catch(undefined),
  context_length: z.int().min(1).max(contextTokensMax).nullish().catch(undefined),
  context_window: z.int().min(1).max(contextTokensMax).nullish().catch(undefined),
  /** llama-server with several models loads one when it is asked for. */
  status: z.object({ value: z.string() }).nullish().catch(undefined),
});
const list = z.object({ data: z.array(z.unknown()) });

export interface DeclaredModel {
  readonly baseUrl: string;
  /** Who answers for the server: part of the declared digest. */
  readonly owner: string;
  /** The operator's word on what the weights are; for a server with one model. */
  readonly digest?: ModelDigest;
  /** Where the server does not tell it. */
  readonly contextTokens: number;
}

/** A model as the server lists it. */
export interface ListedModel extends Pick<EngineModel, 'name' | 'digest' | 'contextTokens'> {
  /** Who it belongs to, by the server's word: printable, maybe empty. */
  readonly ownedBy: string;
  /** A request does not make the server load it first. */
  readonly isLoaded: boolean;
}

/** A declared digest: without the weights at hand, who serves what where is all there is to hash. */
const declareDigest = ({ owner, baseUrl, digest }: DeclaredModel, id: string): ModelDigest =>
  digest ?? (sha256Hex(JSON.stringify(['openai', owner, baseUrl, id])) as ModelDigest);

const toModel = (declared: DeclaredModel, item: z.infer<typeof listed>): ListedModel => ({
  name: item.id,
  digest: declareDigest(declared, item.id),
  contextTokens: item.max_model_len ?? item.context_length ?? item.context_window ?? declared.contextTokens,
  ownedBy: (item.owned_by ?? '').replace(/[^\x20-\x7e]/g, '').slice(0, ownerMaxChars),
  isLoaded: (item.status?.value ?? 'loaded') === 'loaded',
});

/**
 * Reads the body of `GET /models`: at most as many models as fit an offer, without names that clients could not write.
 * @throws HelixFlowError ENGINE_FAILED when it is no list of models.
 */
export function readModels(declared: DeclaredModel, text: string): ListedModel[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw upstreamFault('its list of models is not JSON', cause);
  }
  const parsed = list.safeParse(json);
  if (!parsed.success)
    throw upstreamFault('it sent no list of models; is this an OpenAI-compatible server?', parsed.error);
  const models = new Map<string, ListedModel>();
  for (const item of parsed.data.data) {
    const { data } = listed.safeParse(item);
    if (data === undefined || data.id.length > limits.modelNameMaxChars) continue;
    if (models.size < limits.offerModelsMax) models.set(data.id, toModel(declared, data));
  }
  return [...models.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
