/** `helixflow mesh peers`: who is connected to the daemon on a data directory now. */

import type { RunCommand } from '../command.ts';
import { callDaemon } from '../control-client.ts';
import { openDataDir } from '../data-dir.ts';
import { columns } from '../lists.ts';

export const runMeshPeers: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const { gateway, node } = await callDaemon(dir.socket, 'GET /status');
  const peers = [
    ...(gateway?.peers ?? []).map((peer) => ({ via: 'gateway', ...peer })),
    ...(node?.peers ?? []).map((peer) => ({ via: 'node', ...peer })),
  ];
  const table = columns(
    ['PEER', 'ROLE', 'OWNER', 'DIRECTION', 'PATH', 'SINCE', 'ADDRESS'],
    peers.map(({ peer, role, owner, direction, path = '', since, address }) => [
      peer,
      role,
      owner,
      direction,
      path,
      since,
      address,
    ]),
  );
  output.data({ peers }, peers.length === 0 ? 'no peers' : table);
  return 0;
};
