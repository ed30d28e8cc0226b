/** TLS at the door: one certificate for all listeners of this process, read from files and taken anew when they change. */

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions, type Server } from 'node:tls';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock, Log } from '../../protocol/ports.ts';
import { dayMs, type Ms, ms, seconds, type UnixMs, unixMs } from '../../protocol/units.ts';

export interface TlsOptions {
  /** PEM: the server's own certificate first, then those between it and a root that clients know. */
  readonly certFile: string;
  /** PEM, without a passphrase. */
  readonly keyFile: string;
  /** Clients that speak only older versions are refused in the handshake. */
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3';
}

export interface TlsDeps {
  readonly clock: Clock;
  readonly log: Log;
}

/** What is shown of the certificate; nothing here is secret. */
export interface TlsStatus {
  /** What clients may call the server: DNS names and IP addresses. */
  readonly names: readonly string[];
  /** Hex sha256 of the certificate. */
  readonly fingerprint: string;
  readonly minVersion: TlsOptions['minVersion'];
  readonly expiresMs: UnixMs;
  /** Whole days until then; negative afterwards. */
  readonly daysLeft: number;
  readonly state: 'valid' | 'early' | 'expiring' | 'expired';
  /** When this certificate was taken from the files. */
  readonly takenMs: UnixMs;
  /** Why the files as they are now are not served; the certificate before them still is. */
  readonly fault?: string;
}

/** The certificate of this process, as its files have it. */
export interface Tls extends Disposable {
  /** For whoever makes a server, `attach`ed afterwards. */
  serverOptions(): SecureContextOptions & { readonly handshakeTimeout: number };
  /** Gives the server every later certificate, too, until it closes. Connections that are open keep theirs. */
  attach(server: Server): void;
  status(): TlsStatus;
  /** Looks at the files now; by itself this happens every few seconds. */
  check(): Promise<void>;
}

interface Pair {
  readonly cert: string;
  readonly key: string;
  readonly leaf: X509Certificate;
}

/** A whole pair, or why the files hold none. */
type Reading = { readonly pair: Pair } | { readonly fault: string };

const pollMs = seconds(5);
/** A ticket key that is stolen later opens no session older than this. */
const ticketKeysMs = ms(3_600_000);
const expiringDays = 14;
const fileMaxBytes = 1_048_576;
const handshakeTimeoutMs = seconds(10);

/** TLS 1.3's own suites, and those of 1.2 with forward secrecy and authenticated encryption. */
const ciphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** The code of an error of the system or of OpenSSL. @throws `error` itself when it has none. */
function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  throw error;
}

const fileReasons: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  ENOTDIR: 'it does not exist',
  EACCES: 'this user may not read it',
  EPERM: 'this user may not read it',
};

async function readPem(path: string): Promise<{ readonly text: string } | { readonly fault: string }> {
  try {
    const found = await stat(path);
    if (!found.isFile()) return { fault: 'it is no file' };
    if (found.size > fileMaxBytes) return { fault: `it is larger than ${fileMaxBytes} bytes` };
    return { text: await readFile(path, 'utf8') };
  } catch (error) {
    const code = codeOf(error);
    return { fault: fileReasons[code] ?? code };
  }
}

const certificateBlock = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

function parseChain(text: string): readonly X509Certificate[] | string {
  const blocks = text.match(certificateBlock) ?? [];
  if (blocks.length === 0) {
    return text.includes('PRIVATE KEY-----')
      ? 'it holds a key, not a certificate'
      : 'it holds no certificate in PEM form';
  }
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    return `one of its certificates cannot be read (${codeOf(error)})`;
  }
}

function parseKey(text: string): KeyObject | string {
  // OpenSSL has no one code for this.
  if (/-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(text)) {
    return 'it is encrypted; store it without a passphrase, readable by its owner alone';
  }
  try {
    return createPrivateKey(text);
  } catch (error) {
    return `it holds no private key that can be read (${codeOf(error)})`;
  }
}

const contextOptions = (
  { cert, key }: Pick<Pair, 'cert' | 'key'>,
  { minVersion }: TlsOptions,
): SecureContextOptions => ({
  cert,
  key,
  minVersion,
  ciphers,
  honorCipherOrder: true,
});

/**
 * Both files, read and found to belong together.
 * @param served What need not be looked at again.
 */
async function readPair(options: TlsOptions, served?: Pair): Promise<Reading> {
  const { certFile, keyFile } = options;
  const [certText, keyText] = await Promise.all([readPem(certFile), readPem(keyFile)]);
  if (served !== undefined && 'text' in certText && 'text' in keyText) {
    if (certText.text === served.cert && keyText.text === served.key) return { pair: served };
  }
  const chain = 'fault' in certText ? certText.fault : parseChain(certText.text);
  const key = 'fault' in keyText ? keyText.fault : parseKey(keyText.text);
  if ('fault' in certText || 'fault' in keyText || typeof chain === 'string' || typeof key === 'string') {
    const faults = [
      ...(typeof chain === 'string' ? [`--tls-cert ${certFile}: ${chain}`] : []),
      ...(typeof key === 'string' ? [`--tls-key ${keyFile}: ${key}`] : []),
    ];
    return { fault: faults.join('\n') };
  }
  const [leaf] = chain;
  if (leaf === undefined || !leaf.checkPrivateKey(key)) {
    const isLater = chain.some((certificate) => certificate.checkPrivateKey(key));
    return {
      fault: isLater
        ? `--tls-cert ${certFile}: the server's own certificate must come first`
        : `--tls-key ${keyFile}: it is not the key of the certificate in ${certFile}`,
    };
  }
  const pair = { cert: certText.text, key: keyText.text, leaf };
  try {
    createSecureContext(contextOptions(pair, options));
  } catch (error) {
    return { fault: `--tls-cert ${certFile}: it cannot be served (${codeOf(error)})` };
  }
  return { pair };
}

/** What the certificate says it may be called. */
const namesOf = (leaf: X509Certificate): string[] =>
  (leaf.subjectAltName ?? '').split(', ').flatMap((name) => /^(?:DNS|IP Address):(.+)$/.exec(name)?.[1] ?? []);

class FileTls implements Tls {
  readonly #deps: TlsDeps;
  readonly #options: TlsOptions;
  readonly #servers = new Set<Server>();
  #pair: Pair;
  #takenMs: UnixMs;
  /** When the servers were last given a context of their own, with fresh ticket keys. */
  #contextMs: Ms;
  #fault: string | undefined;
  #warned = '';
  #checking: Promise<void> | undefined;
  #stop = (): void => {};
  #isDisposed = false;

  constructor(deps: TlsDeps, options: TlsOptions, pair: Pair) {
    this.#deps = deps;
    this.#options = options;
    this.#pair = pair;
    this.#takenMs = deps.clock.wallMs();
    this.#contextMs = deps.clock.nowMs();
    this.#warnOfExpiry();
    this.#schedule();
  }

  serverOptions(): SecureContextOptions & { readonly handshakeTimeout: number } {
    return { ...contextOptions(this.#pair, this.#options), handshakeTimeout: handshakeTimeoutMs };
  }

  attach(server: Server): void {
    server.setSecureContext(contextOptions(this.#pair, this.#options));
    this.#servers.add(server);
    server.once('close', () => this.#servers.delete(server));
  }

  status(): TlsStatus {
    const { leaf } = this.#pair;
    const nowMs = this.#deps.clock.wallMs();
    const expiresMs = unixMs(leaf.validToDate.getTime());
    const daysLeft = Math.floor((expiresMs - nowMs) / dayMs);
    const late = expiresMs <= nowMs ? 'expired' : daysLeft < expiringDays ? 'expiring' : 'valid';
    return {
      names: namesOf(leaf),
      fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
      minVersion: this.#options.minVersion,
      expiresMs,
      daysLeft,
      state: leaf.validFromDate.getTime() > nowMs ? 'early' : late,
      takenMs: this.#takenMs,
      ...(this.#fault === undefined ? {} : { fault: this.#fault }),
    };
  }

  check(): Promise<void> {
    this.#checking ??= this.#look().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#stop();
  }

  #schedule(): void {
    if (this.#isDisposed) return;
    this.#stop = this.#deps.clock.timer(pollMs, () => {
      void this.check().finally(() => this.#schedule());
    });
  }

  /** The texts are compared, not the files' times: a copy that keeps its time and length is a change, too. */
  async #look(): Promise<void> {
    const reading = await readPair(this.#options, this.#pair);
    if (this.#isDisposed) return;
    if ('fault' in reading) this.#refuse(reading.fault);
    else if (reading.pair !== this.#pair) this.#take(reading.pair);
    else this.#fault = undefined;
    if (this.#deps.clock.nowMs() - this.#contextMs >= ticketKeysMs) this.#renewContexts();
    this.#warnOfExpiry();
  }

  #refuse(fault: string): void {
    if (fault !== this.#fault) this.#deps.log.warn('tls.refused', { reason: fault });
    this.#fault = fault;
  }

  #take(pair: Pair): void {
    this.#pair = pair;
    this.#takenMs = this.#deps.clock.wallMs();
    this.#fault = undefined;
    this.#renewContexts();
    const { fingerprint, daysLeft } = this.status();
    this.#deps.log.info('tls.taken', { fingerprint, daysLeft });
  }

  /** A new context draws new keys for session tickets; sessions that are open do not notice. */
  #renewContexts(): void {
    this.#contextMs = this.#deps.clock.nowMs();
    for (const server of this.#servers) server.setSecureContext(contextOptions(this.#pair, this.#options));
  }

  /** Once a day, as long as it lasts. */
  #warnOfExpiry(): void {
    const { state, daysLeft, fingerprint } = this.status();
    const warning = state === 'valid' ? '' : `${state} ${daysLeft} ${fingerprint}`;
    if (warning !== this.#warned && warning !== '') this.#deps.log.warn(`tls.${state}`, { daysLeft, fingerprint });
    this.#warned = warning;
  }
}

/**
 * Reads certificate and key, and watches their files until disposed. A pair that does not fit together, as while it is
 * being replaced, is never served: the one before it is, and the files are looked at again every few seconds.
 * An expired certificate is served, since clients may still be told to trust it; the log and `status` say so.
 * @throws HelixFlowError CONFIG_INVALID when there is no pair to begin with.
 */
export async function openTls(deps: TlsDeps, options: TlsOptions): Promise<Tls> {
  const reading = await readPair(options);
  if ('fault' in reading) throw new HelixFlowError('CONFIG_INVALID', { reason: reading.fault });
  return new FileTls(deps, options, reading.pair);
}
