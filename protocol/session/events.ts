/** What a session tells whoever owns it. */

import type { HelixFlowError } from '../errors.ts';
import type { TabFrame } from '../messages/tab.ts';
import type { Contact } from '../ports.ts';
import type { ServedAttempt } from './incoming.ts';
import type { Session } from './session.ts';

/** What a session tells its owner. */
export interface SessionEvents {
  /** Both `start` frames have crossed; the session may now be chosen or dropped. */
  started(session: Session): void;
  /** A whole request has come in (to a node). */
  opened(session: Session, attempt: ServedAttempt): void;
  /** The peer's offer or load changed (at a gateway). */
  changed(session: Session): void;
  /** The gateway holds our offer of this revision (at a node). */
  offered(session: Session, revision: number): void;
  /** The gateway is connected with these others (at a node). */
  gateways(session: Session, contacts: readonly Contact[]): void;
  /** A frame of the tab between the two. */
  tab(session: Session, frame: TabFrame): void;
  /** The peer has fallen silent; `changed` came before. */
  suspected(session: Session): void;
  /** A goodbye went out or came in: no new attempts. */
  left(session: Session): void;
  /** Over; nothing follows. */
  closed(session: Session, error: HelixFlowError | undefined): void;
}
