/** Starting a peer in two steps: first it can be reached, then it is a member. */

interface StartedPeer {
  /** Resolves once other peers can reach this one. */
  readonly listening: Promise<void>;
  /** Rejects when the peer can never become a member. */
  readonly failed: Promise<never>;
}

/** Starts to listen, then to enter the mesh by `join`. */
export function startPeer(start: (join: () => Promise<void>) => Promise<void>, join: () => Promise<void>): StartedPeer {
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  failed.catch(() => {});
  start(async () => {
    resolve();
    await join();
  }).catch((error: unknown) => {
    reject(error);
    fail(error);
  });
  return { listening, failed };
}
