/** Self-signed certificates for TLS tests, written as DER by hand: no test needs another program for one. */

import { generateKeyPairSync, sign } from 'node:crypto';

const tlv = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const { length } = body;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
};
const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(0x30, ...parts);
const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const utcTime = (ms: number): Buffer => {
  const text = new Date(ms)
    .toISOString()
    .replaceAll(/[-:T]|\.\d{3}/g, '')
    .slice(2);
  return tlv(0x17, Buffer.from(text));
};

const ecdsaWithSha256 = sequence(hex('06082a8648ce3d040302'));
const dayMs = 86_400_000;

export interface CertificateWish {
  readonly names?: readonly string[];
  readonly addresses?: readonly string[];
  readonly fromMs?: number;
  readonly toMs?: number;
}

/** A certificate that is its own root, with its key; both PEM. */
export function selfSigned(wish: CertificateWish = {}): { readonly cert: string; readonly key: string } {
  const nowMs = Date.now();
  const { names = ['localhost'], addresses = ['127.0.0.1'], fromMs = nowMs - dayMs, toMs = nowMs + 30 * dayMs } = wish;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const commonName = tlv(0x0c, Buffer.from(names[0] ?? 'test'));
  const name = sequence(tlv(0x31, sequence(hex('0603550403'), commonName)));
  const altNames = sequence(
    ...names.map((text) => tlv(0x82, Buffer.from(text))),
    ...addresses.map((text) => tlv(0x87, Buffer.from(text.split('.').map(Number)))),
  );
  const extensions = sequence(
    sequence(hex('0603551d11'), tlv(0x04, altNames)),
    sequence(hex('0603551d13'), hex('0101ff'), tlv(0x04, sequence(hex('0101ff')))),
  );
  const body = sequence(
    tlv(0xa0, hex('020102')),
    tlv(0x02, hex('01'), Buffer.from([Math.floor(Math.random() * 256)])),
    ecdsaWithSha256,
    name,
    sequence(utcTime(fromMs), utcTime(toMs)),
    name,
    publicKey.export({ format: 'der', type: 'spki' }),
    tlv(0xa3, extensions),
  );
  const signature = tlv(0x03, hex('00'), sign('sha256', body, privateKey));
  const der = sequence(body, ecdsaWithSha256, signature);
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
  };
}
