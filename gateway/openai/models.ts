/** `GET /v1/models` and `GET /v1/models/{id}`: what can be asked for, from the gateway's own view. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { ListedModel } from '../service.ts';

/** A model as OpenAI writes it, with what clients of other servers look for. */
interface ModelObject {
  readonly id: string;
  readonly object: 'model';
  readonly created: number;
  readonly owned_by: string;
  readonly max_model_len?: number;
  readonly context_length?: number;
  readonly helixflow: {
    readonly digest: ModelDigest;
    readonly nodes?: number;
    readonly other_digests: readonly ModelDigest[];
  };
}

const modelObject = (model: ListedModel, id: string): ModelObject => ({
  id,
  object: 'model',
  created: model.firstSeenS,
  owned_by: 'helixflow',
  max_model_len: model.contextTokens,
  context_length: model.contextTokens,
  helixflow: { digest: model.digest, nodes: model.nodes, other_digests: model.otherDigests },
});

/** Another model that goes by the same name: what is known of it is its digest. */
const otherModelObject = (model: ListedModel, id: string, digest: ModelDigest): ModelObject => ({
  id,
  object: 'model',
  created: model.firstSeenS,
  owned_by: 'helixflow',
  helixflow: { digest, other_digests: [model.digest, ...model.otherDigests.filter((other) => other !== digest)] },
});

/** The list, as JSON. */
export const modelList = (models: readonly ListedModel[]): string =>
  JSON.stringify({ object: 'list', data: models.map((model) => modelObject(model, model.name)) });

function findModel(models: readonly ListedModel[], id: string): ModelObject | undefined {
  const exact = models.find(({ name }) => name === id);
  if (exact !== undefined) return modelObject(exact, id);
  const at = id.lastIndexOf('@');
  const prefix = id.slice(at + 1);
  const named =
    at > 0 && /^[0-9a-f]{8,64}$/.test(prefix) ? models.find(({ name }) => name === id.slice(0, at)) : undefined;
  if (named === undefined) return undefined;
  if (named.digest.startsWith(prefix)) return modelObject(named, id);
  const other = named.otherDigests.find((digest) => digest.startsWith(prefix));
  return other === undefined ? undefined : otherModelObject(named, id, other);
}

/**
 * One model, as JSON. @param id A name, or `name@digest8`.
 * @throws HelixFlowError MODEL_NOT_FOUND
 */
export function oneModel(models: readonly ListedModel[], id: string): string {
  const found = findModel(models, id);
  if (found === undefined) throw new HelixFlowError('MODEL_NOT_FOUND', { model: id.slice(0, 256) });
  return JSON.stringify(found);
}
