/** What goes between the root and the gateway that takes an issuer's authority over: a request, and a grant. */

import { z } from 'zod';
import { fromBase64Url, fromHex, signBytes, toBase64Url, toHex, verifyBytes } from './crypto.ts';
import { HelixFlowError } from './errors.ts';
import type { NetworkKind } from './grants.ts';
import type { MeshId } from './ids.ts';
import { limits } from './limits.ts';
import type { SigningKey } from './ports.ts';

/** A key that wants to be an issuer's. Not a secret. */
export interface HandoverRequest {
  readonly meshId: MeshId;
  /** 32 bytes, Ed25519. */
  readonly publicKey: Uint8Array;
}

/** What the root says to it. Not a secret: useless without the key that asked. */
export interface HandoverGrant {
  /** Token of kind `issuer`, which names the issuer that it succeeds. */
  readonly certificate: string;
  /** Token of kind `revocation`, when the old issuer is taken back. */
  readonly revocation?: string;
  /** What the old directory knows of the mesh; nobody signs this. */
  readonly mesh: { readonly name: string; readonly network: NetworkKind; readonly isOpen: boolean };
}

const REQUEST_PREFIX = 'hx-handover-request-';
const GRANT_PREFIX = 'hx-handover-grant-';
const DOMAIN = 'helixflow/handover/1';

const invalid = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('TOKEN_INVALID', { reason }, { cause });

/** Asks to be named as an issuer of the mesh: one line, signed by the key itself, so that no letter of it gets lost. */
export function encodeHandoverRequest(meshId: MeshId, key: SigningKey): string {
  const bytes = Uint8Array.from([...fromHex(meshId), ...key.publicKey]);
  return `${REQUEST_PREFIX}${toBase64Url(Uint8Array.from([...bytes, ...signBytes(DOMAIN, bytes, key)]))}`;
}

/** Reads such a line. @throws HelixFlowError TOKEN_INVALID */
export function parseHandoverRequest(text: string): HandoverRequest {
  const line = text.trim();
  const packed = line.startsWith(REQUEST_PREFIX) ? fromBase64Url(line.slice(REQUEST_PREFIX.length)) : new Uint8Array();
  if (packed.length !== 128 || toBase64Url(packed) !== line.slice(REQUEST_PREFIX.length)) {
    throw invalid('it is no handover request');
  }
  const [bytes, signature] = [packed.subarray(0, 64), packed.subarray(64)];
  const publicKey = bytes.slice(32);
  if (!verifyBytes(DOMAIN, bytes, signature, publicKey)) throw invalid('the handover request was changed on its way');
  return { meshId: toHex(bytes.subarray(0, 32)) as MeshId, publicKey };
}

const token = z.string().min(1).max(limits.tokenMaxChars);
const grantShape = z.object({
  format: z.literal(1),
  certificate: token,
  revocation: token.optional(),
  mesh: z.object({ name: z.string().min(1).max(64), network: z.enum(['lan', 'public']), isOpen: z.boolean() }),
});

/** One line for `helixflow mesh handover --accept`. */
export const encodeHandoverGrant = (grant: HandoverGrant): string =>
  `${GRANT_PREFIX}${toBase64Url(new TextEncoder().encode(JSON.stringify({ format: 1, ...grant })))}`;

/** Reads such a line; its tokens are not checked here. @throws HelixFlowError TOKEN_INVALID */
export function parseHandoverGrant(text: string): HandoverGrant {
  const line = text.trim();
  if (!line.startsWith(GRANT_PREFIX) || line.length > 3 * limits.tokenMaxChars)
    throw invalid('it is no handover grant');
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(fromBase64Url(line.slice(GRANT_PREFIX.length))));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw invalid('the handover grant was changed on its way', cause);
  }
  const parsed = grantShape.safeParse(value);
  if (!parsed.success) throw invalid('the handover grant was changed on its way', parsed.error);
  const { certificate, revocation, mesh } = parsed.data;
  return { certificate, ...(revocation === undefined ? {} : { revocation }), mesh };
}
