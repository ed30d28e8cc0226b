/** `helixflow mesh members`: every peer that was admitted to the mesh, as far as this directory has heard. */

import type { MemberView } from '../../gateway/admin/mesh-operations.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import { columns, isoOf, listAll, moment } from '../lists.ts';

const stateOf = ({ banned, expiresMs }: MemberView, nowMs: number): string =>
  banned ? 'banned' : expiresMs <= nowMs ? 'lapsed' : 'member';

export const runMeshMembers: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'mesh members');
  const members = await listAll(
    (page) => admin.call('members.list', page),
    ({ peer }) => peer,
  );
  const nowMs = Date.now();
  const values = members.map(({ peer, role, owner, admittedMs, expiresMs, banned }) => ({
    peer,
    role,
    owner,
    admitted: isoOf(admittedMs),
    expires: isoOf(expiresMs),
    banned,
  }));
  const table = columns(
    ['PEER', 'ROLE', 'OWNER', 'STATE', 'ADMITTED', 'EXPIRES'],
    members.map((member) => [
      member.peer,
      member.role,
      member.owner,
      stateOf(member, nowMs),
      moment(member.admittedMs),
      moment(member.expiresMs),
    ]),
  );
  output.data({ members: values }, members.length === 0 ? 'no members' : table);
  return 0;
};
