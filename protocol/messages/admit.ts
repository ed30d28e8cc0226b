/** The frames of `/helixflow/admit/1`: an invite or a membership is shown, a newer membership comes back. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { type ErrorCode, HelixFlowError } from '../errors.ts';
import type { Credentials } from '../grants.ts';
import { isPeerId, type PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { Reader } from '../reader.ts';
import { printable } from './hello.ts';

/** In place of the hello for a peer with an invite and no membership; after it for members (design §4, §6). */
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
/**
 * A member shows what it holds, and gets a longer one. On its own connection it may be passed on, once: then the peer is
 * not the one that the connection has authenticated.
 */
export interface AdmitRenew {
  readonly type: 'renew';
  readonly peer: PeerId;
  readonly credentials: Credentials;
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

const refuseCodes = ['INVITE_INVALID', 'MEMBERSHIP_INVALID', 'ADMISSION_UNAVAILABLE'] as const;
/**
 * INVITE_INVALID, MEMBERSHIP_INVALID: no gateway will ever take this invite, or renew this membership.
 * ADMISSION_UNAVAILABLE: this one cannot, now.
 */
export type RefuseCode = Extract<ErrorCode, (typeof refuseCodes)[number]>;

/** Everything that is said there: one question, one answer. */
export type AdmitFrame = AdmitRequest | AdmitRelay | AdmitRenew | Admitted | AdmitRefuse;

const number = { request: 0, relay: 1, admitted: 2, refuse: 3, renew: 4 } as const;
const reasonMaxChars = 256;

const positionsOf = ({ rootPublicKey, certificate, membership }: Credentials): readonly Value[] => [
  rootPublicKey,
  certificate,
  membership,
];

/** The bytes of a frame. */
export function encodeAdmitFrame(frame: AdmitFrame): Uint8Array {
  switch (frame.type) {
    case 'request':
      return encodeValue([number.request, frame.invite]);
    case 'relay':
      return encodeValue([number.relay, frame.invite, frame.joiner]);
    case 'admitted':
      return encodeValue([number.admitted, ...positionsOf(frame.credentials)]);
    case 'renew':
      return encodeValue([number.renew, frame.peer, ...positionsOf(frame.credentials)]);
    case 'refuse':
      return encodeValue([number.refuse, frame.code, frame.reason.slice(0, reasonMaxChars)]);
  }
}

function readPeer(reader: Reader): PeerId {
  const text = reader.text(64);
  if (!isPeerId(text)) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'admit: no peer id' });
  return text;
}

const readCredentials = (reader: Reader): Credentials => ({
  rootPublicKey: reader.bytes(32, 32).slice(),
  certificate: reader.text(limits.tokenMaxChars),
  membership: reader.text(limits.tokenMaxChars),
});

function readRefuse(reader: Reader): AdmitRefuse {
  const text = reader.text(64);
  const code = refuseCodes.find((known) => known === text) ?? 'ADMISSION_UNAVAILABLE';
  return { type: 'refuse', code, reason: printable(reader.text(reasonMaxChars)) };
}

/**
 * Reads one frame. Positions after the known ones are ignored, so that a later version may append some.
 * @throws HelixFlowError FRAME_MALFORMED, also for a frame type that this version does not know.
 */
export function parseAdmitFrame(bytes: Uint8Array): AdmitFrame {
  const reader = new Reader(decodeValue(bytes), 'admit');
  switch (reader.int(number.renew)) {
    case number.request:
      return { type: 'request', invite: reader.text(limits.tokenMaxChars) };
    case number.relay:
      return { type: 'relay', invite: reader.text(limits.tokenMaxChars), joiner: readPeer(reader) };
    case number.admitted:
      return { type: 'admitted', credentials: readCredentials(reader) };
    case number.renew:
      return { type: 'renew', peer: readPeer(reader), credentials: readCredentials(reader) };
    default:
      return readRefuse(reader);
  }
}
