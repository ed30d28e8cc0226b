/** Carries one call: tries nodes until one shows content, and others when that one is lost; each attempt leaves its line. */

import type { AttemptEnd } from '../../ledger/tabs.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { IssuerId, KeyId } from '../../protocol/ids.ts';
import type { Delta, Done } from '../../protocol/messages/session.ts';
import type { AttemptEvents } from '../../protocol/session/outgoing.ts';
import type { BagItem } from '../../protocol/tables.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Rate } from '../access/subject.ts';
import type { Serving } from '../nodes.ts';
import type { Answer, AnswerEvents } from '../service.ts';
import { owedOf, type RunningAttempt } from './attempt.ts';
import { Books, type Durable } from './books.ts';
import { Course } from './course.ts';
import { Places } from './places.ts';
import { recover, type Scored } from './plan.ts';
import { Race } from './race.ts';
import { failedOutcome, moreTelling, type RouteDeps } from './route.ts';
import { Runs, type StopReason } from './runs.ts';
import type { AttemptPurpose } from './trace.ts';
import type { DispatchWork } from './work.ts';

const ignore = (): void => {};

/**
 * `funding`: money is asked for; `trying`: attempts run, or a place for one is sought; `ending`: the last attempt has
 * ended but its line is not on disk; `over`: the client has heard its end, or has gone.
 */
type Phase = 'funding' | 'trying' | 'ending' | 'over';

/** One running call. */
export class Dispatch implements Answer, BagItem {
  bagIndex = -1;
  readonly rate: Rate | undefined;
  readonly #deps: RouteDeps;
  readonly #work: DispatchWork;
  readonly #books: Books;
  readonly #events: AnswerEvents;
  readonly #runs: Runs;
  readonly #places: Places;
  readonly #course: Course;
  readonly #deadlineMs: Ms;
  #phase: Phase = 'funding';
  readonly #race = new Race();
  #lastError: HelixFlowError | undefined;

  constructor(deps: RouteDeps, work: DispatchWork, events: AnswerEvents) {
    this.rate = work.rate;
    this.#deps = deps;
    this.#work = work;
    this.#books = new Books(deps.accounting, work);
    this.#events = events;
    const startMs = deps.clock.nowMs();
    this.#deadlineMs = ms(startMs + work.call.deadlineMs);
    this.#course = new Course(work.target.digest);
    this.#runs = new Runs(deps, work, startMs);
    this.#places = new Places(deps, work, this.#runs, {
      found: (place, purpose) => this.#try(place, purpose),
      none: (error) => this.#noPlace(error),
    });
  }

  get isBilled(): boolean {
    return this.#books.isBilled;
  }

  /** Sets the money aside, where the account has a budget, then goes to a node. */
  start(): void {
    const refusal = this.#phase === 'over' ? undefined : this.#books.open();
    if (refusal instanceof Promise) void refusal.then((error) => this.#opened(error));
    else this.#opened(refusal);
  }

  cancel(): void {
    if (this.#phase === 'over') return;
    if (this.#phase !== 'ending') this.#stop('client');
    this.#over();
  }

  /**
   * Ends the call with `error`, after first content too: what made it possible has been taken back.
   * @returns false when nothing was left to end.
   */
  cut(error: HelixFlowError): boolean {
    if (this.#phase === 'over' || this.#phase === 'ending') return false;
    this.#stop('key');
    this.#over();
    this.#events.failed(error);
    return true;
  }

  /** True when the call came with this key. */
  isOf(key: KeyId, issuer: IssuerId): boolean {
    const { caller } = this.#work.call;
    return caller.keyId === key && caller.issuer === issuer;
  }

  consumed(bytes: number): void {
    const taken = this.#course.taken(bytes);
    this.#race.current?.attempt?.consumed(taken);
  }

  /** Looks at the time: deadlines, silence, lateness. Called every few dozen milliseconds while the call is under way. */
  tick(nowMs: Ms): void {
    if (this.#phase === 'over' || this.#phase === 'ending') return;
    if (nowMs >= this.#deadlineMs) {
      this.#expired();
      return;
    }
    this.#places.tick(nowMs);
    this.#checkSilence(this.#race.rival, nowMs);
    this.#checkSilence(this.#race.current, nowMs);
    this.#hedgeIfLate(nowMs);
  }

  #opened(refusal: HelixFlowError | undefined): void {
    if (this.#phase === 'over') {
      this.#books.close();
      return;
    }
    this.#phase = 'trying';
    if (refusal === undefined) this.#places.queue(this.#course.wanted('first'));
    else this.#fail(refusal);
  }

  #noPlace(error: HelixFlowError): void {
    const isOverload = error.code === 'GATEWAY_OVERLOADED' || error.code === 'ACCOUNT_OVERLOADED';
    this.#fail(isOverload ? error : (this.#lastError ?? error));
  }

  #try({ node: serving, score, cachedBytes }: Scored<Serving>, purpose: AttemptPurpose): void {
    const startedMs = this.#deps.clock.nowMs();
    // Of a node that has answered nothing yet nobody knows how long it takes.
    const expectedMs = serving.answerMeanMs > 0 ? score.firstMs : 0;
    const running = this.#books.begin({ serving, purpose, startedMs, expectedMs, cachedBytes });
    if (running instanceof HelixFlowError) {
      if (purpose === 'hedge') this.#race.isHedged = true;
      else this.#fail(this.#lastError ?? running);
      return;
    }
    this.#course.left(purpose);
    this.#race.add(running);
    const resume = this.#course.shownFor(purpose)?.resume(this.#course.shownTokens);
    const events: AttemptEvents = {
      delta: (delta) => this.#delta(running, delta),
      done: (done) => this.#done(running, done),
      failed: (error) => this.#failed(running, error),
    };
    try {
      this.#runs.open(running, this.#deadlineMs, events, resume);
    } catch (error) {
      if (!(error instanceof HelixFlowError)) throw error;
      this.#books.drop(running);
      this.#lost(running, error);
      if (purpose !== 'hedge') this.#recover(running, error, false);
      return;
    }
    this.#books.left(running);
    this.#work.meter?.opened();
    if (this.#course.shownTokens > 0) this.#work.meter?.delivered(this.#course.shownTokens);
  }

  #delta(running: RunningAttempt, delta: Delta): void {
    if (!this.#race.has(running)) return;
    running.lastPieceMs = this.#deps.clock.nowMs();
    const tokens = running.received(delta);
    if (delta.text === '') {
      // It cost credit all the same, and nobody downstream will report it as taken.
      running.attempt?.consumed(0);
      if (running.hasContent) this.#course.add(delta);
      else running.held(delta);
      return;
    }
    running.lastTextMs = running.lastPieceMs;
    if (!running.hasContent) this.#won(running);
    this.#course.commit(this.#events);
    // Whenever it hears something the client may go.
    if (!this.#race.has(running)) return;
    this.#course.add(delta);
    this.#work.meter?.delivered(this.#books.keptTokens + tokens);
    this.#events.delta(delta.text);
    if (this.#race.has(running) && !this.#books.reaches(tokens)) this.#outOfMoney(running);
  }

  /** The answer comes from this attempt: its first content is there, or its end. */
  #won(running: RunningAttempt): void {
    const { seeker, target } = this.#work;
    this.#loseRivalOf(running);
    running.hasContent = true;
    const firstMs = ms(this.#deps.clock.nowMs() - running.startedMs);
    running.began(firstMs);
    this.#runs.worked(running);
    this.#books.chose(running);
    if (running.purpose === 'splice') this.#deps.counts.splices.resumed += 1;
    else this.#deps.lateness.note(target.digest, running.expectedMs, firstMs);
    seeker.progressed();
    this.#places.progressed();
    this.#course.begins(running);
  }

  /** Of two that raced, the other one: nobody sees anything of it, and this gateway pays for it. */
  #loseRivalOf(winner: RunningAttempt): void {
    const isHedge = winner === this.#race.rival;
    const loser = this.#race.win(winner);
    if (loser === undefined) return;
    this.#deps.counts.hedges[isHedge ? 'won' : 'lost'] += 1;
    if (isHedge) this.#runs.late(loser);
    this.#discard(loser);
  }

  #discard(loser: RunningAttempt): void {
    this.#runs.stop(loser, 'cancelled', 'hedge-lost', () => {
      this.#books.write(loser, loser.failedEnd('hedged', this.#books.within), ignore);
    });
  }

  #done(running: RunningAttempt, done: Done): void {
    if (!this.#race.has(running)) return;
    if (!running.hasContent) this.#won(running);
    this.#race.clear();
    this.#runs.done(running, done);
    const end = running.doneEnd(done, this.#books.within);
    this.#work.meter?.done(end.promptTokens, this.#books.keptTokens + end.completionTokens);
    this.#write(running, end, (error) => this.#recorded({ ...end, finish: done.finish }, error));
  }

  /** The answer ends here, as one that has reached its bound. */
  #outOfMoney(running: RunningAttempt): void {
    this.#work.meter?.stopped();
    this.#phase = 'ending';
    this.#race.clear();
    this.#runs.stop(running, 'done', 'budget', (said) => {
      const end = running.cancelledEnd(said, this.#books.within);
      this.#write(running, end, (error) => this.#recorded({ ...end, finish: 'length' }, error));
    });
  }

  /** The last line of the call: its client hears of the end once that is on disk. */
  #write(running: RunningAttempt, end: AttemptEnd, durable: Durable): void {
    if (this.#phase !== 'over') this.#phase = 'ending';
    this.#books.write(running, end, (error) => {
      if (this.#phase !== 'over') durable(error);
    });
    this.#books.close();
  }

  /** The line of an answer with a good end is on disk, or can never be. */
  #recorded(end: AttemptEnd & Pick<Done, 'finish'>, error: HelixFlowError<'STORE_FAILED'> | undefined): void {
    if (error !== undefined) {
      this.#tell(new HelixFlowError('USAGE_UNRECORDED', {}, { cause: error }));
      return;
    }
    this.#course.commit(this.#events);
    if (this.#phase === 'over') return;
    this.#over();
    const owed = owedOf(end);
    const completionTokens = this.#books.keptTokens + owed.completionTokens;
    this.#events.done({ ...owed, completionTokens, finish: end.finish, served: this.#course.served() });
  }

  #failed(running: RunningAttempt, error: HelixFlowError): void {
    if (!this.#race.has(running)) return;
    this.#lost(running, error);
    if (this.#race.current === undefined) {
      this.#recover(running, error, true);
      return;
    }
    // The other one goes on alone.
    this.#books.write(running, running.failedEnd(failedOutcome(error), this.#books.within), ignore);
  }

  /** The node has the attempt no more. */
  #lost(running: RunningAttempt, error: HelixFlowError): void {
    this.#race.remove(running);
    if (error.code === 'NODE_OVERLOADED') this.#course.refused(running.purpose);
    this.#runs.failed(running, error);
    this.#work.seeker.failed(running.serving.node, error);
    this.#lastError = moreTelling(this.#lastError, error);
  }

  /** @param hasLeft The attempt has reached its node, so that it leaves a line. */
  #recover(running: RunningAttempt, error: HelixFlowError, hasLeft: boolean): void {
    const standing = this.#course.standing(this.#work.call.isWhole === true);
    const isCrowded = this.#work.seeker.needsRoom(error, running.serving) && !running.hasContent;
    const further = standing.hasContent ? 'splice' : 'retry';
    const recovery = isCrowded ? further : recover(error, standing, this.#deps.policy);
    if (recovery === 'give-up') {
      this.#giveUp(running, error, hasLeft);
      return;
    }
    const end = running.failedEnd(recovery === 'restart' ? 'hedged' : failedOutcome(error), this.#books.within);
    if (hasLeft) this.#books.write(running, end, ignore);
    if (recovery === 'splice') {
      this.#course.spliced(running);
      this.#books.kept(end.completionTokens);
    } else if (recovery === 'restart') {
      this.#course.restarts();
      this.#events.restarted?.();
      if (this.#phase === 'over') return;
    }
    this.#places.seek(this.#course.wanted(recovery));
  }

  #giveUp(running: RunningAttempt, error: HelixFlowError, hasLeft: boolean): void {
    const told = this.#lastError ?? error;
    if (hasLeft) {
      this.#countFailure();
      this.#endBadly(running, failedOutcome(error), told);
    } else this.#fail(told);
  }

  /** Nothing of an answer that nobody has seen is charged, so that its client need not wait for the line. */
  #endBadly(running: RunningAttempt, outcome: 'lost' | 'failed' | 'cut', error: HelixFlowError): void {
    const end = running.failedEnd(outcome, this.#books.within);
    if (this.#course.isCommitted) {
      // A line that cannot be written changes nothing for the client: the error is told as it is.
      this.#write(running, end, () => this.#tell(error));
      return;
    }
    this.#books.write(running, end, ignore);
    this.#books.close();
    this.#tell(error);
  }

  #countFailure(): void {
    this.#work.meter?.failed();
    if (this.#course.isCommitted) this.#deps.counts.splices.failed += 1;
  }

  #fail(error: HelixFlowError): void {
    this.#countFailure();
    this.#books.close();
    this.#tell(error);
  }

  #tell(error: HelixFlowError): void {
    this.#over();
    this.#work.trace.add({ kind: 'ended', atMs: this.#runs.elapsedMs(), code: error.code });
    this.#events.failed(this.#course.told(error));
  }

  #expired(): void {
    const error = new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: this.#work.call.deadlineMs });
    this.#work.meter?.stopped();
    const running = this.#leaveAll();
    if (running === undefined) {
      if (this.#phase === 'trying') this.#books.close();
      this.#tell(error);
      return;
    }
    this.#runs.stop(running, 'failed', 'deadline', ignore);
    this.#endBadly(running, 'cut', error);
  }

  /** The client, or whoever gave it its key, wants no more of it. */
  #stop(why: StopReason): void {
    this.#work.meter?.stopped();
    const running = this.#leaveAll();
    if (running === undefined) {
      // Money that was asked for comes later, and goes back then.
      if (this.#phase === 'trying') this.#books.close();
      return;
    }
    this.#books.isBilled = true;
    this.#runs.stop(running, 'cancelled', why, (said) => {
      this.#books.write(running, running.cancelledEnd(said, this.#books.within), ignore);
      this.#books.close();
    });
  }

  /** Waits no more, races no more. @returns what is left to stop. */
  #leaveAll(): RunningAttempt | undefined {
    this.#places.leave();
    const [running, rival] = this.#race.clear();
    if (rival !== undefined) this.#discard(rival);
    return running;
  }

  #checkSilence(running: RunningAttempt | undefined, nowMs: Ms): void {
    const error = running && this.#runs.silence(running, nowMs);
    if (running && error) this.#failed(running, error);
  }

  /** A request that is late against its model's own times is sent to a second node; whoever shows content first goes on. */
  #hedgeIfLate(nowMs: Ms): void {
    const { lone } = this.#race;
    if (lone === undefined || this.#course.hasContent || !this.#runs.isLate(lone, nowMs)) return;
    const place = this.#places.second(this.#course.wanted('hedge'), lone.serving.node);
    if (place !== undefined) this.#try(place, 'hedge');
  }

  #over(): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#work.ended();
  }
}
