/** The ledger streamed into PostgreSQL: once, or as long as a daemon writes it. */

import type { HeadView } from '../gateway/admin/ledger-operations.ts';
import { type Exported, openPostgresExport } from '../ledger/adapters/export-postgres.ts';
import { type PostgresTarget, parsePostgresUrl } from '../ledger/adapters/export-postgres-connect.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { CommandContext } from './command.ts';
import { pause } from './ledger-follow.ts';
import type { LedgerSource } from './ledger-source.ts';

/** Nothing is lost while the database is away: the cursor is in it. */
const retryMinMs = 1_000;
const retryMaxMs = 30_000;
const tellEveryMs = 2_000;

interface Streaming {
  readonly target: PostgresTarget;
  readonly source: LedgerSource;
  readonly signal: AbortSignal;
  readonly context: CommandContext;
}

const sum = (a: Exported, b: Exported): Exported => ({ blocks: a.blocks + b.blocks, lines: a.lines + b.lines });

/** What an export has to go by; only its sameness counts. */
const textOf = (heads: readonly HeadView[]): string =>
  heads.map(({ author, epoch, number }) => `${author}/${epoch}/${number}`).join(' ');

function openExport({ target, source, signal, context }: Streaming) {
  const { known, role } = source;
  let toldMs = performance.now();
  const progress = ({ lines }: Exported): void => {
    if (performance.now() - toldMs < tellEveryMs) return;
    toldMs = performance.now();
    context.output.note(`${lines} lines so far …`);
  };
  const holds = role === 'gateway' ? 'all' : 'open';
  return openPostgresExport(target, { meshId: known.mesh.meshId, holds, signal, progress });
}

async function once(streaming: Streaming): Promise<Exported> {
  await using opened = await openExport(streaming);
  return await opened.pass(streaming.source.rows);
}

/** One connection, until it breaks or nobody wants more. @param told Called with what each pass has moved. */
async function keepOn(streaming: Streaming, told: (exported: Exported) => void): Promise<void> {
  const { source, signal } = streaming;
  await using opened = await openExport(streaming);
  for (let seen = ''; !signal.aborted; ) {
    const heads = textOf(await source.heads());
    if (heads !== seen) told(await opened.pass(source.rows));
    seen = heads;
    await pause(signal);
  }
}

async function follow(streaming: Streaming): Promise<Exported> {
  const { source, signal, context } = streaming;
  if (!source.isLive) throw new HelixFlowError('DAEMON_UNREACHABLE', { path: source.dir.socket });
  let total: Exported = { blocks: 0, lines: 0 };
  let hasWorked = false;
  for (let delayMs = retryMinMs; !signal.aborted; delayMs = Math.min(2 * delayMs, retryMaxMs)) {
    try {
      await keepOn(streaming, (exported) => {
        hasWorked = true;
        delayMs = retryMinMs;
        total = sum(total, exported);
        if (exported.lines > 0) context.output.note(`${total.lines} lines`);
      });
    } catch (error) {
      // What was wrong from the beginning stays wrong.
      if (!isHelixFlowError(error, 'EXPORT_FAILED') || !hasWorked) throw error;
      context.output.note(`${error.details.reason}; trying again in ${delayMs / 1_000} s`);
      await pause(signal, delayMs);
    }
  }
  return total;
}

/** @throws HelixFlowError EXPORT_FAILED; DAEMON_UNREACHABLE when there is nothing to follow. */
export function streamToPostgres(
  url: string,
  { follow: isFollowing, ...rest }: Omit<Streaming, 'target'> & { readonly follow: boolean },
): Promise<Exported> {
  const streaming = { ...rest, target: parsePostgresUrl(url) };
  return isFollowing ? follow(streaming) : once(streaming);
}
