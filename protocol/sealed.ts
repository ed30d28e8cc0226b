/** Secrets under a passphrase: scrypt makes the key, AES-256-GCM seals the text; a part of JSON records. */

import { z } from 'zod';
import {
  decryptBytes,
  encryptBytes,
  fromBase64Url,
  type StretchCost,
  stretchPassphrase,
  toBase64Url,
} from './crypto.ts';
import type { Random } from './ports.ts';

/**
 * A sealed text as it stands in a record. Whoever changes a byte of it, or moves it to another context (another
 * mesh, another kind of record), makes it unreadable.
 */
export interface Sealed {
  readonly kdf: 'scrypt';
  /** Cost of the passphrase; see `StretchCost`. */
  readonly logN: number;
  readonly r: number;
  readonly p: number;
  readonly cipher: 'aes-256-gcm';
  /** 16 and 12 bytes as base64url. */
  readonly salt: string;
  readonly nonce: string;
  /** Ciphertext and tag as base64url. */
  readonly data: string;
}

/** 128 MiB, and about a third of a second. */
const cost: StretchCost = { logN: 17, r: 8, p: 1 };

const bytesText = (bytes: number): z.ZodType<string> =>
  z.string().regex(new RegExp(`^[A-Za-z0-9_-]{${Math.ceil((bytes * 4) / 3)}}$`));

/** Reads a sealed text from a record; costs are bounded, so that a file from elsewhere cannot take all memory. */
export const sealedShape = z.object({
  kdf: z.literal('scrypt'),
  logN: z.int().min(10).max(20),
  r: z.int().min(1).max(8),
  p: z.int().min(1).max(4),
  cipher: z.literal('aes-256-gcm'),
  salt: bytesText(16),
  nonce: bytesText(12),
  data: z
    .string()
    .regex(/^[A-Za-z0-9_-]+$/)
    .max(1_048_576),
});

/** Seals `text`. @param context What it is and whose, such as `root/<mesh id>`; needed again to open it. */
export function sealText(
  text: string,
  passphrase: string,
  by: { readonly random: Random; readonly context: string },
): Sealed {
  const [salt, nonce] = [by.random.bytes(16), by.random.bytes(12)];
  const key = stretchPassphrase(passphrase, salt, cost);
  const data = encryptBytes(new TextEncoder().encode(text), { key, nonce, context: by.context });
  return {
    kdf: 'scrypt',
    ...cost,
    cipher: 'aes-256-gcm',
    salt: toBase64Url(salt),
    nonce: toBase64Url(nonce),
    data: toBase64Url(data),
  };
}

/** What `sealText` was given; undefined when the passphrase or the context is another, or the text was changed. */
export function openSealed(sealed: Sealed, passphrase: string, context: string): string | undefined {
  const key = stretchPassphrase(passphrase, fromBase64Url(sealed.salt), sealed);
  const nonce = fromBase64Url(sealed.nonce);
  const bytes = decryptBytes(fromBase64Url(sealed.data), { key, nonce, context });
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}
