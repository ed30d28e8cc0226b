/** Jobs that wait for a slot, shared between accounts: a job of whoever holds least goes next, and no account can crowd out another. */

/** What a queue knows of a job. */
interface Owned {
  readonly account: string;
}

/**
 * The jobs of one lane that wait, and how many of each account run. Of the accounts with the fewest running jobs the one
 * whose turn was longest ago is next; inside an account the first to come is the first to go.
 */
export class FairQueue<Job extends Owned> {
  readonly #max: number;
  /** In the order of their turns; an account without waiting jobs has none. */
  readonly #waiting = new Map<string, Job[]>();
  readonly #running = new Map<string, number>();
  #size = 0;

  /** @param max Jobs that may wait. */
  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#size;
  }

  get isFull(): boolean {
    return this.#size >= this.#max;
  }

  /** True while the queue is full and some account has so much more than `account` that it has to give up a place for it. */
  isOwed(account: string): boolean {
    return this.isFull && this.#crowder(account) !== undefined;
  }

  /** How many may go before a new job of this account: its own, and a turn of each other account for each of them and for itself. */
  ahead(account: string): number {
    const own = this.#waiting.get(account)?.length ?? 0;
    const others = this.#waiting.size - (own > 0 ? 1 : 0);
    return own + others * (own + 1);
  }

  /**
   * Lets a job wait; only where there is room, or one is owed.
   * @returns the job that has lost its place to this one: the newest of the account with the most waiting.
   */
  push(job: Job): Job | undefined {
    const crowder = this.isFull ? this.#crowder(job.account) : undefined;
    const jobs = this.#waiting.get(job.account);
    if (jobs === undefined) this.#waiting.set(job.account, [job]);
    else jobs.push(job);
    this.#size += 1;
    const lost = crowder === undefined ? undefined : this.#waiting.get(crowder)?.at(-1);
    if (lost !== undefined) this.remove(lost);
    return lost;
  }

  /** Takes the next job out; it counts as running from now on. */
  next(): Job | undefined {
    let next: string | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const account of this.#waiting.keys()) {
      const running = this.#runningOf(account);
      if (running >= least) continue;
      least = running;
      next = account;
    }
    const jobs = next === undefined ? undefined : this.#waiting.get(next);
    const job = jobs?.[0];
    if (job === undefined || jobs === undefined) return undefined;
    this.remove(job);
    // Its turn is over: everybody who waits comes before its next one.
    if (jobs.length > 0) {
      this.#waiting.delete(job.account);
      this.#waiting.set(job.account, jobs);
    }
    this.started(job);
    return job;
  }

  /** A job of this account runs without having waited. */
  started({ account }: Owned): void {
    this.#running.set(account, this.#runningOf(account) + 1);
  }

  /** A job that ran has ended. */
  ended({ account }: Owned): void {
    const left = this.#runningOf(account) - 1;
    if (left > 0) this.#running.set(account, left);
    else this.#running.delete(account);
  }

  /** @returns false when the job did not wait. */
  remove(job: Job): boolean {
    const jobs = this.#waiting.get(job.account);
    const index = jobs?.indexOf(job) ?? -1;
    if (jobs === undefined || index < 0) return false;
    jobs.splice(index, 1);
    this.#size -= 1;
    if (jobs.length === 0) this.#waiting.delete(job.account);
    return true;
  }

  /** Takes all jobs out. */
  clear(): Job[] {
    const jobs = [...this.#waiting.values()].flat();
    this.#waiting.clear();
    this.#size = 0;
    return jobs;
  }

  #runningOf(account: string): number {
    return this.#running.get(account) ?? 0;
  }

  #holds(account: string): number {
    return this.#runningOf(account) + (this.#waiting.get(account)?.length ?? 0);
  }

  /** The account with the most waiting jobs, if it holds at least two more than `account`: the swap must make them more equal. */
  #crowder(account: string): string | undefined {
    let most: string | undefined;
    for (const other of this.#waiting.keys()) {
      if (most === undefined || this.#isAhead(other, most)) most = other;
    }
    return most !== undefined && this.#holds(most) > this.#holds(account) + 1 ? most : undefined;
  }

  /** More jobs wait of `account` than of `other`; where as many do, more run. */
  #isAhead(account: string, other: string): boolean {
    const more = (this.#waiting.get(account)?.length ?? 0) - (this.#waiting.get(other)?.length ?? 0);
    return more > 0 || (more === 0 && this.#runningOf(account) > this.#runningOf(other));
  }
}
