/** Sleeping and deadlines, made of nothing but a timer: the same behind every clock. */

import { HelixFlowError } from './errors.ts';
import type { Cancel, Clock, Deadline } from './ports.ts';
import type { Ms } from './units.ts';

type SetTimer = Clock['timer'];

/** `Clock.sleep` over `timer`. */
export function sleepBy(timer: SetTimer, delay: Ms, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = (): void => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = timer(delay, () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    });
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** `Clock.deadline` over `timer`. */
export function deadlineBy(timer: SetTimer, delay: Ms, parent?: AbortSignal): Deadline {
  const controller = new AbortController();
  let cancel: Cancel = () => {};
  const onParent = (): void => {
    cancel();
    controller.abort(parent?.reason);
  };
  const release = (): void => {
    cancel();
    parent?.removeEventListener('abort', onParent);
  };
  if (parent?.aborted) {
    controller.abort(parent.reason);
  } else {
    cancel = timer(delay, () => {
      release();
      controller.abort(new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: delay }));
    });
    parent?.addEventListener('abort', onParent, { once: true });
  }
  return { signal: controller.signal, [Symbol.dispose]: release };
}
