/** One synced write at a time: what many want to write in the meantime shares the next one. */

import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { Clock, Store, StoreOp } from '../protocol/ports.ts';

/** Part of a batch, made at the moment when the batch is put together. */
export interface Change {
  readonly ops: readonly StoreOp[];
  /** Called once it would survive a power cut, in the order of the changes; before the next batch is put together. */
  done(): void;
  /** Called in place of `done` when nothing is known of what reached the disk; nothing is ever written again. */
  failed(error: HelixFlowError): void;
}

export interface FeedWriter {
  /** Has `make` called when the next batch is put together; it may answer undefined when there is nothing left to do. */
  submit(make: () => Change | undefined): void;
  /** Writes a change. @throws HelixFlowError STORE_FAILED */
  write(ops: readonly StoreOp[], done: () => void): Promise<void>;
  /** Whether all that was written so far is on disk. @throws HelixFlowError STORE_FAILED */
  checkWritten(): void;
  /** Whether more may be submitted. @throws HelixFlowError STORE_FAILED, LEDGER_UNREADY */
  check(): void;
  /** Refuses what comes later; resolves when what was submitted is written, or has failed. */
  close(): Promise<void>;
}

const sizeOf = (op: StoreOp): number => op.key.length + (op.type === 'put' ? op.value.length : 0);

/** @param options `batchMaxBytes`: above it the changes that remain wait for the batch after. */
export function createFeedWriter(
  deps: { readonly store: Store; readonly clock: Clock },
  options: { readonly batchMaxBytes: number },
): FeedWriter {
  const queue: (() => Change | undefined)[] = [];
  let failure: HelixFlowError | undefined;
  let isClosed = false;
  let running: Promise<void> | undefined;

  const checkWritten = (): void => {
    if (failure !== undefined) throw failure;
  };

  const gather = (): Change[] => {
    const changes: Change[] = [];
    let bytes = 0;
    for (let make = queue.shift(); make !== undefined; make = queue.shift()) {
      const change = make();
      if (change === undefined) continue;
      changes.push(change);
      bytes += change.ops.reduce((sum, op) => sum + sizeOf(op), 0);
      if (bytes >= options.batchMaxBytes) break;
    }
    return changes;
  };

  const commit = async (changes: readonly Change[]): Promise<void> => {
    try {
      checkWritten();
      const ops = changes.flatMap((change) => change.ops);
      if (ops.length > 0) await deps.store.batch(ops, { sync: true });
    } catch (cause) {
      const error = toHelixFlowError(cause, () => new HelixFlowError('STORE_FAILED', { reason: 'write' }, { cause }));
      failure ??= isHelixFlowError(error, 'STORE_FAILED')
        ? error
        : new HelixFlowError('STORE_FAILED', { reason: error.code }, { cause });
      for (const change of changes) change.failed(failure);
      return;
    }
    for (const change of changes) change.done();
  };

  const run = async (): Promise<void> => {
    // What others hand over in this turn belongs to the same batch.
    await deps.clock.turn();
    while (queue.length > 0) await commit(gather());
    running = undefined;
  };

  const submit = (make: () => Change | undefined): void => {
    queue.push(make);
    running ??= run();
  };

  return {
    submit,
    write: (ops, done) =>
      new Promise((resolve, reject) => {
        const change: Change = {
          ops,
          done: () => {
            done();
            resolve();
          },
          failed: reject,
        };
        submit(() => change);
      }),
    checkWritten,
    check() {
      checkWritten();
      if (isClosed) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it is closing' });
    },
    async close() {
      isClosed = true;
      await running;
    },
  };
}
