/** Asks one question of the admission, and waits for its one answer. */

import { HelixFlowError, toHelixFlowError } from '../errors.ts';
import type { Credentials } from '../grants.ts';
import {
  ADMIT_PROTOCOL,
  type AdmitFrame,
  type AdmitRelay,
  type AdmitRenew,
  type AdmitRequest,
  encodeAdmitFrame,
  parseAdmitFrame,
} from '../messages/admit.ts';
import type { Channel, Connection } from '../ports.ts';

/** What may be asked. */
export type Question = AdmitRequest | AdmitRelay | AdmitRenew;

/** An admission that cannot be had here, or not now. */
export const unavailable = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('ADMISSION_UNAVAILABLE', { reason }, { cause });

const closedEarly = (): HelixFlowError =>
  new HelixFlowError('CHANNEL_CLOSED', { reason: 'the admission ended without an answer' });
const malformed = (cause: unknown): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: 'an answer to an invite' }, { cause });

function answerOn(channel: Channel, question: Question, signal: AbortSignal): Promise<AdmitFrame> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => {
      channel.abort(closedEarly());
      reject(signal.reason);
    };
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    channel.receive({
      frame: (bytes) => {
        try {
          resolve(parseAdmitFrame(bytes));
        } catch (error) {
          reject(toHelixFlowError(error, malformed));
        }
        signal.removeEventListener('abort', giveUp);
        channel.end();
      },
      closed: (error) => {
        signal.removeEventListener('abort', giveUp);
        reject(error ?? closedEarly());
      },
      drained: () => {},
    });
    channel.send(encodeAdmitFrame(question));
  });
}

/**
 * Sends one frame on a new channel and waits for the one that answers it. What comes back is not checked here.
 * @throws HelixFlowError INVITE_INVALID, MEMBERSHIP_INVALID or ADMISSION_UNAVAILABLE as the other side says;
 *   PROTOCOL_VIOLATION; FRAME_MALFORMED; CHANNEL_CLOSED; the reason of `signal`.
 */
export async function ask(connection: Connection, question: Question, signal: AbortSignal): Promise<Credentials> {
  const answer = await answerOn(await connection.open(ADMIT_PROTOCOL, signal), question, signal);
  if (answer.type === 'admitted') return answer.credentials;
  if (answer.type === 'refuse') throw new HelixFlowError(answer.code, { reason: answer.reason });
  throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: `a ${answer.type} in answer to a ${question.type}` });
}
