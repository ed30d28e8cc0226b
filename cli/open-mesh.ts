/** What an open mesh costs, in words: for whoever makes one, and for whoever joins one. */

import type { Entry } from './membership.ts';

/** What anybody in an open mesh should have read. */
export const openCosts: readonly string[] = [
  'This mesh is open: its invites may admit any number of nodes of people you do not know. That means:',
  '- Whoever runs a node can read, keep and change the prompts and answers that it serves. Nothing prevents that.',
  '- One person can bring a thousand nodes under a thousand names: owners are no persons, and counting them proves nothing.',
  '- A node may serve a worse model than it says, or make answers up. There is nobody to hold to account.',
  '- A ban keeps one peer id out; its owner comes back with another.',
  'Gateways still need an invite of their own, for each one of them. Send nothing here that must stay private.',
];

/** For a peer that is about to become a member; undefined where there is nothing to say. */
export const joinNote = ({ mesh, invite }: Pick<Entry, 'mesh' | 'invite'>): string | undefined =>
  invite !== undefined && (mesh.isOpen ?? invite.content.isOpen) === true ? openCosts.join('\n') : undefined;
