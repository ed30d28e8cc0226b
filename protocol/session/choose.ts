/** Which of two sessions with one peer stays (design §4): a pure rule over what both sides know, so both answer alike. */

import type { PeerId, ProcessId } from '../ids.ts';

/** What one side said in its `start` frame. */
export interface Started {
  readonly serial: number;
  /** Serials of its starts on the other sessions it held by then. */
  readonly holds: readonly number[];
}

/** What both sides know of a session once their `start` frames have crossed. */
export interface SessionFacts {
  readonly dialler: PeerId;
  /** We are the dialler. */
  readonly isOurs: boolean;
  /** Its connection passes through a third peer. */
  readonly isRelayed: boolean;
  /** The run of the other side. */
  readonly process: ProcessId;
  readonly ours: Started;
  readonly theirs: Started;
}

/** True when one side started `later` after `earlier`, and by then no longer held `earlier`. */
const hadLost = (earlier: Started, later: Started): boolean =>
  later.serial > earlier.serial && !later.holds.includes(earlier.serial);

/**
 * Judges two started sessions with one peer; the order of the arguments matters only between two runs of the peer.
 *
 * A new run of the peer ends its older sessions. A session that one side no longer held, or held only in silence,
 * when it started the other one loses to it. Otherwise a direct one stays and a relayed one goes; of two alike the one
 * dialled by the smaller peer id stays, and of two with one dialler the newer.
 *
 * @returns the one that stays.
 */
export function chooseSession<Session extends SessionFacts>(held: Session, incoming: Session): Session {
  if (held.process !== incoming.process) return incoming;
  const heldIsLost = hadLost(held.ours, incoming.ours) || hadLost(held.theirs, incoming.theirs);
  const incomingIsLost = hadLost(incoming.ours, held.ours) || hadLost(incoming.theirs, held.theirs);
  if (heldIsLost !== incomingIsLost) return heldIsLost ? incoming : held;
  if (held.isRelayed !== incoming.isRelayed) return held.isRelayed ? incoming : held;
  if (held.dialler !== incoming.dialler) return held.dialler < incoming.dialler ? held : incoming;
  const heldSerial = held.isOurs ? held.ours.serial : held.theirs.serial;
  const incomingSerial = incoming.isOurs ? incoming.ours.serial : incoming.theirs.serial;
  return heldSerial > incomingSerial ? held : incoming;
}
