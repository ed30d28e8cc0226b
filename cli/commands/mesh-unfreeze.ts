/** `helixflow mesh unfreeze`: the root lets an author that forked write again, in other epochs than that one. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AuthorId, EpochId } from '../../protocol/ids.ts';
import { signLift } from '../../protocol/root-tokens.ts';
import { type Admin, openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { meshUnfreezeOptions } from '../config/mesh-tables.ts';
import { openRoot } from '../root-key.ts';

/** Where the author has forked, as far as is known here. @throws HelixFlowError SUBJECT_UNKNOWN */
async function forkedEpochs(admin: Admin, author: AuthorId): Promise<readonly EpochId[]> {
  const { forks = [] } = await admin.call('ledger.status', {});
  const epochs = [...new Set(forks.filter((fork) => fork.author === author).map(({ epoch }) => epoch))];
  if (epochs.length > 0) return epochs;
  throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'fork of author', id: author });
}

export const runMeshUnfreeze: RunCommand<typeof meshUnfreezeOptions> = async (config, context) => {
  const { author, epoch } = config;
  await using admin = await openAdmin(context.common.dataDir, 'mesh unfreeze');
  const { meshId } = admin.known.mesh;
  const epochs = epoch === undefined ? await forkedEpochs(admin, author) : [epoch];
  const root = await openRoot(admin.dir, meshId, config, context);
  const signing = { tokens: createJoseTokens(), nowMs: systemClock().wallMs() };
  const lifts = await Promise.all(epochs.map((each) => signLift({ meshId, author, epoch: each }, root.key, signing)));
  await admin.takeRoots(lifts.map((token) => ({ kind: 'lift', token })));
  context.output.data(
    { meshId, author, epochs },
    `${author} may write again, in other epochs than ${epochs.join(', ')}.`,
  );
  return 0;
};
