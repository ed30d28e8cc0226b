/** The engine of the simulated world: takes the next event, runs it, lets everything it woke come to rest. */

import { assert } from '../protocol/invariant.ts';
import { runTurns } from './clock.ts';
import { EventHeap, type EventKind, type SimEvent } from './heap.ts';
import { SimRandom } from './random.ts';
import { Trace } from './trace.ts';

/**
 * One run of one virtual process, or the world itself. What belongs to a dead one never happens; what
 * belongs to a paused one waits.
 */
export class Lifeline {
  readonly id: number;
  readonly name: string;
  readonly #kernel: Kernel;
  #isAlive = true;
  #isPaused = false;
  /** Events that came up during the pause. */
  #backlog: SimEvent[] = [];
  /** Timers set and neither fired nor cancelled. */
  timersPending = 0;

  constructor(kernel: Kernel, id: number, name: string) {
    this.#kernel = kernel;
    this.id = id;
    this.name = name;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Nothing of it happens any more. */
  end(): void {
    this.#isAlive = false;
    this.#backlog = [];
  }

  pause(): void {
    this.#isPaused = true;
  }

  /**
   * Catches up as a resumed process does: timers that are overdue first, in their order, then what was to be read.
   * @returns How much had waited.
   */
  resume(): number {
    this.#isPaused = false;
    const backlog = this.#backlog;
    this.#backlog = [];
    const timers = backlog.filter((event) => event.kind === 'timer');
    const rest = backlog.filter((event) => event.kind !== 'timer');
    let delayMs = 0;
    for (const event of [...timers, ...rest]) {
      this.#kernel.again(event, delayMs);
      delayMs += 1e-6;
    }
    return backlog.length;
  }

  hold(event: SimEvent): void {
    this.#backlog.push(event);
  }

  /** Ports of a dead process must not be used: that would be a ghost in the run. */
  check(): void {
    assert(this.#isAlive, `a dead process does nothing (${this.name})`);
  }
}

/** Ties are drawn below this; an event with it comes after all others of its instant. */
const tieLast = 2 ** 32;

const kindNumber: Readonly<Record<EventKind, number>> = { timer: 1, io: 2, world: 3 };

/** Virtual time and the order of everything in it. */
export class Kernel {
  readonly random: SimRandom;
  readonly trace = new Trace();
  /** For what belongs to no process: faults, the network itself, checkers. */
  readonly world: Lifeline;
  readonly #heap = new EventHeap();
  readonly #ties: SimRandom;
  #afterTurn: (() => void)[] = [];
  #nowMs = 0;
  #sequence = 0;
  #lifelines = 0;
  #events = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(seed: number) {
    this.random = new SimRandom(String(seed));
    this.#ties = this.random.fork('ties');
    this.world = this.lifeline('world');
  }

  /** Virtual milliseconds since the start of the run; exact, the same for all. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events that have happened. */
  get events(): number {
    return this.#events;
  }

  /** Events that wait. */
  get pending(): number {
    return this.#heap.size;
  }

  lifeline(name: string): Lifeline {
    this.#lifelines += 1;
    return new Lifeline(this, this.#lifelines, name);
  }

  /** Lets `fire` happen in `delayMs`; of several at one instant the seed says which comes first. */
  schedule(delayMs: number, fire: () => void, owner: Lifeline = this.world, kind: EventKind = 'world'): SimEvent {
    const event = this.#make(delayMs, fire, owner, kind);
    event.tie = this.#ties.uint32();
    this.#heap.push(event);
    return event;
  }

  /** As `schedule`, at a moment of true time. */
  scheduleAt(atMs: number, fire: () => void, owner: Lifeline, kind: EventKind): SimEvent {
    return this.schedule(atMs - this.#nowMs, fire, owner, kind);
  }

  /** As `schedule`, but after everything else that is due at that instant. */
  scheduleLast(delayMs: number, fire: () => void, owner: Lifeline, kind: EventKind): SimEvent {
    const event = this.#make(delayMs, fire, owner, kind);
    this.#heap.push(event);
    return event;
  }

  #make(delayMs: number, fire: () => void, owner: Lifeline, kind: EventKind): SimEvent {
    this.#sequence += 1;
    const at = this.#nowMs + Math.max(0, delayMs);
    assert(at < Number.POSITIVE_INFINITY, 'an event has a time');
    return { at, tie: tieLast, sequence: this.#sequence, owner, kind, fire, state: 'queued' };
  }

  /** Puts an event that was held back into the queue again, in the order of these calls. */
  again(event: SimEvent, delayMs: number): void {
    if (event.state === 'over') return;
    event.state = 'queued';
    event.at = this.#nowMs + delayMs;
    event.tie = 0;
    this.#heap.push(event);
  }

  /** False when it has happened, or was cancelled before. */
  cancel(event: SimEvent): boolean {
    if (event.state === 'over') return false;
    if (event.state === 'queued') this.#heap.cancel(event);
    event.state = 'over';
    return true;
  }

  /** Calls `flush` once, when everything that the current event woke has come to rest. It must not run process code. */
  afterTurn(flush: () => void): void {
    this.#afterTurn.push(flush);
  }

  /** Ends the run: our own code broke a promise. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  get failure(): { readonly error: unknown } | undefined {
    return this.#failure;
  }

  /** Runs everything that is due until `untilMs`, or until a failure; then it is that time. */
  async run(untilMs: number): Promise<void> {
    await runTurns(() => (this.#step(untilMs) ? 'more' : 'done'));
  }

  /** Runs freely, waiting for events from outside when there are none, until the result is disposed. For tests. */
  pump(): Disposable {
    let isGoing = true;
    void runTurns(() => {
      if (!isGoing) return 'done';
      return this.#step(Number.POSITIVE_INFINITY) ? 'more' : 'idle';
    });
    return {
      [Symbol.dispose]: () => {
        isGoing = false;
      },
    };
  }

  #step(untilMs: number): boolean {
    this.#settle();
    if (this.#failure !== undefined) return false;
    for (let event = this.#heap.peek(); event !== undefined && event.at <= untilMs; event = this.#heap.peek()) {
      this.#heap.pop();
      if (this.#fire(event)) return true;
    }
    if (untilMs < Number.POSITIVE_INFINITY) this.#nowMs = Math.max(this.#nowMs, untilMs);
    return false;
  }

  #settle(): void {
    while (this.#afterTurn.length > 0) {
      const flushes = this.#afterTurn;
      this.#afterTurn = [];
      for (const flush of flushes) flush();
    }
  }

  /** False when nothing ran, so that no turn is needed. */
  #fire(event: SimEvent): boolean {
    const owner = event.owner;
    if (!owner.isAlive) return false;
    if (owner.isPaused) {
      event.state = 'held';
      owner.hold(event);
      return false;
    }
    this.#nowMs = event.at;
    this.#events += 1;
    this.trace.add(event.at);
    this.trace.add(owner.id * 4 + kindNumber[event.kind]);
    this.trace.add(event.sequence);
    event.state = 'over';
    try {
      event.fire();
    } catch (error) {
      this.fail(error);
    }
    return true;
  }
}
