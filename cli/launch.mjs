/** Whether the Node that runs this can run HelixFlow, and if not, which one could. */

import { fileURLToPath } from 'node:url';

/** The oldest Node that strips types without a warning. */
export const minimum = [24, 12];

const isEnough = (version) => {
  const [major, minor] = version.split('.').map(Number);
  return major > minimum[0] || (major === minimum[0] && minor >= minimum[1]);
};

/** Where npm puts the Node of the `node` package, from `folder` up to the root. */
export function nodeCandidates(folder, platform) {
  const place = platform === 'win32' ? 'node_modules/node/bin/node.exe' : 'node_modules/.bin/node';
  const paths = [];
  for (let at = new URL('.', folder); ; at = new URL('..', at)) {
    paths.push(fileURLToPath(new URL(place, at)));
    if (at.pathname === new URL('..', at).pathname) return paths;
  }
}

/**
 * Decides what to do.
 * @param candidates Nodes that exist, the nearest first.
 * @param isRelaunched True when this process was started by another one that decided so.
 */
export function planLaunch({ version, candidates, isRelaunched }) {
  if (isEnough(version)) return { kind: 'run' };
  const [node] = candidates;
  if (node !== undefined && !isRelaunched) return { kind: 'relaunch', node };
  const needed = `helixflow needs Node ${minimum.join('.')} or later, this is ${version}`;
  const advice = 'install a newer Node, or run npm ci (without --omit=dev) where helixflow lies';
  return { kind: 'missing', message: `${needed}: ${advice}` };
}
