/** Work that one exchange leaves for later: one job after the other, none once the exchange is over. */

import { type HelixFlowError, isHelixFlowError, toHelixFlowError } from '../protocol/errors.ts';

type Job = () => void | Promise<void>;

interface JobsOwner {
  isOver(): boolean;
  /** A job failed. */
  failed(error: HelixFlowError): void;
}

/** Whoever waits for them may come late to an error, so that is a value here. */
export async function allOf<T>(promised: readonly Promise<T>[]): Promise<readonly T[] | HelixFlowError> {
  try {
    return await Promise.all(promised);
  } catch (error) {
    if (isHelixFlowError(error)) return error;
    throw error;
  }
}

export class Jobs {
  readonly #owner: JobsOwner;
  #tail: Promise<void> = Promise.resolve();
  #size = 0;

  constructor(owner: JobsOwner) {
    this.#owner = owner;
  }

  /** Jobs that have not ended. */
  get size(): number {
    return this.#size;
  }

  add(job: Job): void {
    this.#size += 1;
    this.#tail = this.#tail.then(async () => {
      await this.#try(job);
      this.#size -= 1;
    });
  }

  async #try(job: Job): Promise<void> {
    try {
      if (!this.#owner.isOver()) await job();
    } catch (error) {
      this.#owner.failed(
        toHelixFlowError(error, (cause) => {
          throw cause;
        }),
      );
    }
  }
}
