/** Noise without what its usual form costs for every piece that is sent or received: a key read anew, an exception at the end. */

import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import { noise } from '@chainsafe/libp2p-noise';
import { defaultCrypto } from '@chainsafe/libp2p-noise/crypto';
import type { ConnectionEncrypter } from '@libp2p/interface';

type Factory = ReturnType<typeof noise>;
type Encrypt = (typeof defaultCrypto)['chaCha20Poly1305Encrypt'];
type Decrypt = (typeof defaultCrypto)['chaCha20Poly1305Decrypt'];
type Bytes = Parameters<Encrypt>[0];

const cipher = 'chacha20-poly1305';
const tagBytes = 16;
const tag = { authTagLength: tagBytes };
/** Below it the usual implementation, in WebAssembly, is the faster one. */
const smallBytes = 600;

/** Node takes three times as long with a key as bytes, most of it for two exceptions of its own. */
const readKeys = new WeakMap<Uint8Array, KeyObject>();

function readKey(key: Uint8Array): KeyObject {
  const known = readKeys.get(key);
  if (known !== undefined) return known;
  const read = createSecretKey(key);
  readKeys.set(key, read);
  return read;
}

const joined = (bytes: Bytes): Uint8Array => (bytes instanceof Uint8Array ? bytes : bytes.subarray());

/** As the usual one. */
export const encrypt: Encrypt = (plain, nonce, ad, key) => {
  if (plain.byteLength < smallBytes) return defaultCrypto.chaCha20Poly1305Encrypt(plain, nonce, ad, key);
  const sealing = createCipheriv(cipher, readKey(key), nonce, tag);
  sealing.setAAD(ad, { plaintextLength: plain.byteLength });
  const sealed = sealing.update(joined(plain));
  sealing.final();
  return Buffer.concat([sealed, sealing.getAuthTag()], sealed.length + tagBytes);
};

/** As the usual one: it throws where a bit has changed. */
export const decrypt: Decrypt = (...call) => {
  const [sealed, nonce, ad, key] = call;
  if (sealed.byteLength < smallBytes) return defaultCrypto.chaCha20Poly1305Decrypt(...call);
  const bytes = joined(sealed);
  const end = bytes.length - tagBytes;
  const opening = createDecipheriv(cipher, readKey(key), nonce, tag);
  opening.setAAD(ad, { plaintextLength: end });
  opening.setAuthTag(bytes.subarray(end));
  const plain = opening.update(bytes.subarray(0, end));
  opening.final();
  return plain;
};

const prefixBytes = 2;

/** Cuts what comes into messages, each behind its length in two bytes. Holds at most one that is not whole. */
export class MessageCutter {
  #held: Uint8Array = new Uint8Array(0);

  /** @returns what is whole now, in order; empty messages are left out. It may share memory with `data`. */
  decode(data: Bytes): Uint8Array[] {
    const bytes = this.#withHeld(joined(data));
    const messages: Uint8Array[] = [];
    let at = 0;
    while (bytes.length - at >= prefixBytes) {
      const length = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
      const next = at + prefixBytes + length;
      if (next > bytes.length) break;
      if (length > 0) messages.push(bytes.subarray(at + prefixBytes, next));
      at = next;
    }
    this.#held = bytes.subarray(at);
    return messages;
  }

  #withHeld(bytes: Uint8Array): Uint8Array {
    if (this.#held.length === 0) return bytes;
    const all = new Uint8Array(this.#held.length + bytes.length);
    all.set(this.#held);
    all.set(bytes, this.#held.length);
    return all;
  }
}

/** What of a connection of noise is exchanged; it may hold the beginning of a message already. */
interface Receiving {
  decoder?: { readonly buffer?: { subarray(): Uint8Array } };
}

/** The usual one tells by an exception that a piece has ended, and so makes one for each. */
function cutLean<T extends { readonly connection: object }>(secured: T): T {
  const receiving = secured.connection as Receiving;
  const held = receiving.decoder?.buffer;
  if (held === undefined) return secured;
  const cutter = new MessageCutter();
  cutter.decode(held.subarray());
  return Object.assign(secured, { connection: Object.assign(receiving, { decoder: cutter }) });
}

type Secure = ConnectionEncrypter['secureInbound'];

/** As `noise`, and understood by it. */
export const leanNoise = (): Factory => {
  const usual = noise({
    crypto: { ...defaultCrypto, chaCha20Poly1305Encrypt: encrypt, chaCha20Poly1305Decrypt: decrypt },
  });
  return (components) => {
    const inner = usual(components);
    const secureInbound = inner.secureInbound.bind(inner) as Secure;
    const secureOutbound = inner.secureOutbound.bind(inner) as Secure;
    return Object.assign(inner, {
      secureInbound: (async (connection, options) => cutLean(await secureInbound(connection, options))) as Secure,
      secureOutbound: (async (connection, options) => cutLean(await secureOutbound(connection, options))) as Secure,
    });
  };
};
