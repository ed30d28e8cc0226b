/** `helixflow mesh ban` and `mesh unban`: who belongs to the mesh no more, and who may again. */

import type { PeerId } from '../../protocol/ids.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { meshBanOptions, meshUnbanOptions } from '../config/mesh-tables.ts';

export const runMeshBan: RunCommand<typeof meshBanOptions> = async (config, { common, output }) => {
  const peer = config.peer as PeerId;
  await using admin = await openAdmin(common.dataDir, 'mesh ban');
  const { banned } = await admin.call('bans.create', { peer });
  output.data({ peer, banned }, `${peer} is banned; its connections close wherever this becomes known.`);
  return 0;
};

export const runMeshUnban: RunCommand<typeof meshUnbanOptions> = async (config, { common, output }) => {
  const peer = config.peer as PeerId;
  await using admin = await openAdmin(common.dataDir, 'mesh unban');
  const { banned } = await admin.call('bans.remove', { peer });
  output.data({ peer, banned }, banned ? `${peer} is still banned by another issuer.` : `${peer} may come back.`);
  return 0;
};
