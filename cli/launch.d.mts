/** Types of `launch.mjs`, which is plain JavaScript so that an old Node can run it. */

export type LaunchPlan =
  | { readonly kind: 'run' }
  | { readonly kind: 'relaunch'; readonly node: string }
  | { readonly kind: 'missing'; readonly message: string };

/** The oldest Node that strips types without a warning: major and minor version. */
export const minimum: readonly [number, number];

/** Where npm puts the Node of the `node` package, from `folder` up to the root. */
export function nodeCandidates(folder: URL, platform: string): string[];

/** Decides what to do. `candidates` exist, the nearest first. */
export function planLaunch(facts: {
  readonly version: string;
  readonly candidates: readonly string[];
  readonly isRelaunched: boolean;
}): LaunchPlan;
