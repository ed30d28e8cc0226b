/** Work that is put off to the end of the running turn of the event loop, once for all who ask. */

interface Flushable {
  flush(): void;
}

export interface TurnEnd {
  /** Calls `work.flush` after everything that is ready to be read now has been read. */
  add(work: Flushable): void;
}

/** One `setImmediate` for all: it runs right after the poll phase, in which the sockets are read. */
export function createTurnEnd(): TurnEnd {
  let waiting: Flushable[] = [];
  const run = (): void => {
    const due = waiting;
    waiting = [];
    for (const work of due) work.flush();
  };
  return {
    add: (work) => {
      if (waiting.push(work) === 1) setImmediate(run);
    },
  };
}
