/** The frames of `/helixflow/admit/1`: an invite is shown, a membership comes back. */

import { decodeValue, encodeValue } from '../codec.ts';
import { type ErrorCode, HelixFlowError } from '../errors.ts';
import type { Credentials } from '../grants.ts';
import { isPeerId, type PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { Reader } from '../reader.ts';
import { printable } from './hello.ts';

/** In place of the hello, for a peer with an invite and no membership (design §4). */
export const ADMIT_PROTOCOL = '/helixflow/admit/1';

/** The joiner shows its invite; who it is, the connection has authenticated. */
export interface AdmitRequest {
  readonly type: 'request';
  readonly invite: string;
}
/** A gateway that cannot admit passes a request on, to one that can; never passed on again. */
export interface AdmitRelay {
  readonly type: 'relay';
  readonly invite: string;
  /** Whom the relaying gateway's connection has authenticated. */
  readonly joiner: PeerId;
}
/** The joiner is a member. */
export interface Admitted {
  readonly type: 'admitted';
  readonly credentials: Credentials;
}
/** It is not. */
export interface AdmitRefuse {
  readonly type: 'refuse';
  readonly code: RefuseCode;
  readonly reason: string;
}

/** INVITE_INVALID: no gateway will ever take this invite. ADMISSION_UNAVAILABLE: this one cannot, now. */
export type RefuseCode = Extract<ErrorCode, 'INVITE_INVALID' | 'ADMISSION_UNAVAILABLE'>;

/** Everything that is said there: one question, one answer. */
export type AdmitFrame = AdmitRequest | AdmitRelay | Admitted | AdmitRefuse;

const number = { request: 0, relay: 1, admitted: 2, refuse: 3 } as const;
const reasonMaxChars = 256;

/** The bytes of a frame. */
export function encodeAdmitFrame(frame: AdmitFrame): Uint8Array {
  switch (frame.type) {
    case 'request':
      return encodeValue([number.request, frame.invite]);
    case 'relay':
      return encodeValue([number.relay, frame.invite, frame.joiner]);
    case 'admitted': {
      const { rootPublicKey, certificate, membership } = frame.credentials;
      return encodeValue([number.admitted, rootPublicKey, certificate, membership]);
    }
    case 'refuse':
      return encodeValue([number.refuse, frame.code, frame.reason.slice(0, reasonMaxChars)]);
  }
}

function readPeer(reader: Reader): PeerId {
  const text = reader.text(64);
  if (!isPeerId(text)) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'relay: no peer id' });
  return text;
}

/**
 * Reads one frame. Positions after the known ones are ignored, so that a later version may append some.
 * @throws HelixFlowError FRAME_MALFORMED, also for a frame type that this version does not know.
 */
export function parseAdmitFrame(bytes: Uint8Array): AdmitFrame {
  const reader = new Reader(decodeValue(bytes), 'admit');
  switch (reader.int(number.refuse)) {
    case number.request:
      return { type: 'request', invite: reader.text(limits.tokenMaxChars) };
    case number.relay:
      return { type: 'relay', invite: reader.text(limits.tokenMaxChars), joiner: readPeer(reader) };
    case number.admitted: {
      const rootPublicKey = reader.bytes(32, 32).slice();
      const certificate = reader.text(limits.tokenMaxChars);
      return {
        type: 'admitted',
        credentials: { rootPublicKey, certificate, membership: reader.text(limits.tokenMaxChars) },
      };
    }
    default: {
      const code = reader.text(64);
      const reason = printable(reader.text(reasonMaxChars));
      return { type: 'refuse', code: code === 'INVITE_INVALID' ? code : 'ADMISSION_UNAVAILABLE', reason };
    }
  }
}
