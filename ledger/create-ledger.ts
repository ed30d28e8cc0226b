/** The ledger of one peer, put together: roots, heartbeats and feeds from disk, then their exchange with others. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { Ledger, LedgerOptions, LedgerPorts } from './ledger.ts';

/** Makes the ledger of one peer; create it before the network's `start`, and `open` it before anything is answered. */
export function createLedger(_ports: LedgerPorts, _options: LedgerOptions): Ledger {
  throw new HelixFlowError('LEDGER_UNREADY', { reason: 'ledger' });
}
