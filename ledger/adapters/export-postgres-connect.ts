/** Connections to PostgreSQL: what a URL says, TLS by its sslmode, and errors that never show a password. */

import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { Client, ClientConfig } from 'pg';
import { HelixFlowError } from '../../protocol/errors.ts';

/** A URL, taken apart. */
export interface PostgresTarget {
  readonly config: ClientConfig;
  /** For people: without user and password. */
  readonly name: string;
}

const failed = (target: string, reason: string, cause?: unknown): HelixFlowError<'EXPORT_FAILED'> =>
  new HelixFlowError('EXPORT_FAILED', { target, reason }, { cause });

/** Parameters of libpq that are about TLS: they are read here, since `pg` means other things by them. */
const tlsParameters = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'ssl', 'uselibpqcompat'] as const;
const connectTimeoutMs = 10_000;

const isLocal = (host: string): boolean =>
  host === '' ||
  host === 'localhost' ||
  /^127\./.test(host) ||
  host === '::1' ||
  host.startsWith('/') ||
  /^%2f/i.test(host);

function readFile(target: string, name: string, path: string | null): string | undefined {
  if (path === null) return undefined;
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw failed(target, `${name} cannot be read`, cause);
  }
}

/**
 * As libpq has it, but for what is not said: to another machine everything goes encrypted to a server that proves its name.
 * @throws HelixFlowError EXPORT_FAILED
 */
function tlsOf(target: string, host: string, given: URLSearchParams): ConnectionOptions | false {
  const mode = given.get('sslmode') ?? (isLocal(host) ? 'disable' : 'verify-full');
  const ca = readFile(target, 'sslrootcert', given.get('sslrootcert'));
  const cert = readFile(target, 'sslcert', given.get('sslcert'));
  const key = readFile(target, 'sslkey', given.get('sslkey'));
  const files = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
  const withoutName = { ...files, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  switch (mode) {
    case 'disable':
      return false;
    case 'require':
    case 'no-verify':
      // libpq checks the chain all the same where it was told of a root.
      return ca === undefined ? { ...files, rejectUnauthorized: false } : withoutName;
    case 'verify-ca':
      return withoutName;
    case 'verify-full':
      return { ...files, rejectUnauthorized: true };
    default:
      throw failed(
        target,
        `sslmode=${mode.slice(0, 16)} is not known here; disable, require, verify-ca and verify-full are`,
      );
  }
}

/** Where the parts of a URL end: nothing in a password is taken for another part. */
function partsOf(url: string): { readonly host: string; readonly path: string; readonly query: string } {
  const [before = '', ...queries] = url.split('?');
  const rest = before.replace(/^postgres(ql)?:\/\//, '');
  const behind = rest.slice(rest.lastIndexOf('@') + 1);
  const slash = behind.indexOf('/');
  const place = slash < 0 ? behind : behind.slice(0, slash);
  return {
    host: /^\[(.*)\]/.exec(place)?.[1] ?? place.replace(/:\d+$/, ''),
    path: `${place}${slash < 0 ? '' : behind.slice(slash)}`,
    query: queries.join('?'),
  };
}

/** A `?` or `#` that should be part of a password ends it, and what follows is taken for something else. */
function isWhole(url: string): boolean {
  const [before = '', ...queries] = url.replace(/^postgres(ql)?:\/\//, '').split('?');
  const hasPlace = before.includes('@') || before.includes('/') || !queries.join('?').includes('@');
  // The driver takes a user without a host, too.
  return hasPlace && !url.includes('#') && URL.canParse(url.replace('@/', '@host/'));
}

/** Takes a URL apart. @throws HelixFlowError EXPORT_FAILED when it is none, or its TLS. */
export function parsePostgresUrl(url: string): PostgresTarget {
  if (!isWhole(url)) throw failed('postgres://…', 'it is no URL; in a password / is written %2F, ? %3F, # %23, @ %40');
  const { host, path, query } = partsOf(url);
  const name = `postgres://${path}`;
  const given = new URLSearchParams(query);
  const ssl = tlsOf(name, given.get('host') ?? host, given);
  for (const parameter of tlsParameters) given.delete(parameter);
  const left = given.size === 0 ? '' : `?${given}`;
  const connectionString = `${url.split('?')[0]}${left}`;
  const config: ClientConfig = {
    connectionString,
    ssl,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    application_name: 'helixflow',
  };
  return { config, name };
}

/** What went wrong, in the server's words or the system's. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (!(error instanceof Error)) return 'unknown';
  const code = 'code' in error && typeof error.code === 'string' ? ` (${error.code})` : '';
  return `${error.message.split('\n')[0]}${code}`;
}

/** An error of the server, or on the way to it; others are faults of our own. */
export const isDatabaseError = (error: unknown): error is Error =>
  error instanceof Error && !(error instanceof HelixFlowError) && !(error instanceof TypeError);

/** The typed form of an error. */
export const exportError = ({ name, config }: PostgresTarget, error: unknown): HelixFlowError<'EXPORT_FAILED'> => {
  const password = /^[^:]+:\/\/[^:]*:(.*)@/.exec(config.connectionString ?? '')?.[1];
  const reason = reasonOf(error);
  const hidden = password === undefined || password === '' ? reason : reason.replaceAll(decoded(password), '…');
  return failed(name, hidden, error);
};

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return text;
    throw error;
  }
}

/** The driver is optional: only who exports to PostgreSQL needs it. */
async function loadDriver(target: PostgresTarget): Promise<typeof Client> {
  try {
    return (await import('pg')).Client;
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code !== 'ERR_MODULE_NOT_FOUND') throw cause;
    throw failed(target.name, 'the package pg is not installed; npm install pg adds it', cause);
  }
}

/** Connects. @throws HelixFlowError EXPORT_FAILED */
export async function connectPostgres(target: PostgresTarget): Promise<Client> {
  const Driver = await loadDriver(target);
  const client = new Driver(target.config);
  // A connection that breaks while nothing is asked is found out by the next question.
  client.on('error', () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    throw exportError(target, error);
  }
}
