/** Feeds over a store: what comes in is checked and chained, what is written is signed and synced, forks are proven. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { Feeds, FeedsDeps, FeedsEvents, FeedsOptions } from './feeds.ts';

/** Makes the feeds of one process; `open` them before anything else. */
export function createFeeds(_deps: FeedsDeps, _options: FeedsOptions, _events: FeedsEvents): Feeds {
  throw new HelixFlowError('LEDGER_UNREADY', { reason: 'feeds' });
}
