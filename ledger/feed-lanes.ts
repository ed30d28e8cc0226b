/** Work that must not overlap: one lane for each name, any number of lanes at a time. */

/** Runs `work` once everything that was given to the same lane before has settled. */
export type InLane = <T>(lane: string, work: () => Promise<T>) => Promise<T>;

/** Makes a set of lanes; an idle one costs nothing. */
export function createLanes(): InLane {
  const tails = new Map<string, Promise<void>>();
  return async (lane, work) => {
    const before = tails.get(lane);
    let leave: () => void = () => {};
    const tail = new Promise<void>((resolve) => {
      leave = resolve;
    });
    tails.set(lane, tail);
    try {
      await before;
      return await work();
    } finally {
      if (tails.get(lane) === tail) tails.delete(lane);
      leave();
    }
  };
}
