/** The simulator's only look at the real world: how fast it runs, and alarms on every way around the ports. */

import { InvariantError } from '../protocol/invariant.ts';

const hostNow = performance.now.bind(performance);

/** Real milliseconds, for measuring the simulator itself. */
export const hostNowMs = (): number => hostNow();

/** Frames of our own code in a stack; a test runner that looks at its watch meanwhile is none of our business. */
const ourFrame = new RegExp(
  `${new URL('..', import.meta.url).pathname}(protocol|ledger|node|gateway|sim)/(?!tripwires)`,
);

function isOurs(): boolean {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 100;
  const { stack = '' } = new Error();
  Error.stackTraceLimit = limit;
  return ourFrame.test(stack);
}

type Target = Record<string, unknown>;

/** Replaces one function until the result is called. */
function trip(target: object, name: string, label: string, onTrip: (error: InvariantError) => void): () => void {
  const original = Object.getOwnPropertyDescriptor(target, name);
  const real = (target as Target)[name] as (...args: unknown[]) => unknown;
  if (original === undefined || !original.configurable) return () => {};
  const alarm = function (this: unknown, ...args: unknown[]): unknown {
    if (!isOurs()) return new.target === undefined ? Reflect.apply(real, this, args) : Reflect.construct(real, args);
    const error = new InvariantError(`broken promise: the simulator keeps to its ports (${label})`);
    onTrip(error);
    throw error;
  };
  Object.setPrototypeOf(alarm, real);
  Object.defineProperty(target, name, {
    ...original,
    ...('value' in original ? { value: alarm } : { get: () => alarm }),
  });
  return () => Object.defineProperty(target, name, original);
}

/** A `Date` that reads no clock: dates made of numbers or text are plain values. */
function tripDate(onTrip: (error: InvariantError) => void): () => void {
  const RealDate = Date;
  const alarm = (): never => {
    const error = new InvariantError('broken promise: the simulator keeps to its ports (Date)');
    onTrip(error);
    throw error;
  };
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget) => {
      if (args.length === 0 && isOurs()) alarm();
      return Reflect.construct(target, args, newTarget === globalThis.Date ? target : newTarget);
    },
    apply: (target, self, args) => (isOurs() ? alarm() : Reflect.apply(target as () => string, self, args)),
  });
  return () => {
    globalThis.Date = RealDate;
  };
}

/** What is replaced: where it lives, and its names. */
const wires: readonly (readonly [label: string, target: () => object, names: readonly string[]])[] = [
  ['Date', () => Date, ['now']],
  ['Math', () => Math, ['random']],
  ['performance', () => Object.getPrototypeOf(performance) as object, ['now']],
  ['', () => globalThis, ['setTimeout', 'setInterval', 'setImmediate', 'fetch']],
  ['AbortSignal', () => AbortSignal, ['timeout']],
  ['crypto', () => Object.getPrototypeOf(crypto) as object, ['getRandomValues', 'randomUUID']],
  ['crypto.subtle', () => Object.getPrototypeOf(crypto.subtle) as object, ['digest', 'sign', 'verify', 'importKey']],
  ['process', () => process, ['hrtime', 'uptime']],
];

/**
 * Sets the alarms and takes rejections that nobody handles, until the result is disposed.
 * @param onEscape Called with what was tried or thrown; the call that tried throws too.
 */
export function guardHost(onEscape: (error: unknown) => void): Disposable {
  process.on('unhandledRejection', onEscape);
  const restore = wires.flatMap(([label, target, names]) => {
    const at = target();
    return names.map((name) => trip(at, name, label === '' ? name : `${label}.${name}`, onEscape));
  });
  restore.push(tripDate(onEscape));
  return {
    [Symbol.dispose]: () => {
      process.off('unhandledRejection', onEscape);
      for (const put of restore.toReversed()) put();
    },
  };
}
