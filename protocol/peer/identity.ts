/** What a peer id is: an Ed25519 public key, in base58btc of an identity multihash of its protobuf. */

import { base58btc } from 'multiformats/bases/base58';
import { isSameBytes, keyFromSeed } from '../crypto.ts';
import type { PeerId } from '../ids.ts';

/** Identity multihash of 36 bytes, then a protobuf: key type Ed25519, data of 32 bytes. */
const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
const publicKeyBytes = 32;

/** The peer id of an Ed25519 public key of 32 bytes. */
export function peerIdOf(publicKey: Uint8Array): PeerId {
  const bytes = new Uint8Array(prefix.length + publicKeyBytes);
  bytes.set(prefix);
  bytes.set(publicKey, prefix.length);
  return base58btc.baseEncode(bytes) as PeerId;
}

/** The peer id of the key pair behind 32 bytes of seed. */
export const peerIdFromSeed = (seed: Uint8Array): PeerId => peerIdOf(keyFromSeed(seed).publicKey);

/** The Ed25519 public key in a peer id, 32 bytes; undefined for an id that holds none. */
export function publicKeyOf(peer: PeerId): Uint8Array | undefined {
  const bytes = base58Bytes(peer);
  const isEd25519 =
    bytes?.length === prefix.length + publicKeyBytes && isSameBytes(bytes.subarray(0, prefix.length), prefix);
  return isEd25519 ? bytes?.subarray(prefix.length) : undefined;
}

function base58Bytes(text: string): Uint8Array | undefined {
  try {
    return base58btc.baseDecode(text);
  } catch {
    // The library throws a plain Error for a character that is none.
    return undefined;
  }
}
