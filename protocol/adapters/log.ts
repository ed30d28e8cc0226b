/** The real log: one JSON line per event on stderr, written before the call returns, with nothing secret in it. */

import { type Logger, pino, stdTimeFunctions } from 'pino';
import { HelixFlowError } from '../errors.ts';
import type { Log, LogFields } from '../ports.ts';

/** From the most to say to the least. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

export interface LogOptions {
  readonly level: LogLevel;
  readonly destination: 'stderr';
  /** Carried by every line. */
  readonly fields?: LogFields;
}

const hidden = '[hidden]';
const secretName = /key$|token$|^authorization$|password|secret|cookie|^invite$|^join$|^prompt$|^content$/i;
/** Our API keys, any JWT, and credentials of an Authorization header. */
const secretText = /sk-[A-Za-z0-9._-]{8,}|eyJ[A-Za-z0-9_-]{8,}[A-Za-z0-9._-]*|(?<=\bBearer )\S+/g;

const cleanText = (text: string): string => (text.length < 10 ? text : text.replace(secretText, hidden));

function cleanValue(name: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  return secretName.test(name) ? hidden : cleanText(value);
}

const cleanFields = (fields: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, cleanValue(name, value)]));

/** Where an error came from. A parser's message may quote what it read, so it is left out. */
function stackOf(error: Error): string {
  const stack = error.stack ?? String(error);
  return cleanText(error instanceof SyntaxError ? stack.replace(`: ${error.message}`, '') : stack);
}

/** The chain of causes by name and code, outermost first; at most 4. */
function causesOf(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = error.cause; cause instanceof Error && causes.length < 4; cause = cause.cause) {
    causes.push('code' in cause ? `${cause.name} ${String(cause.code)}` : cause.name);
  }
  return causes;
}

/** What a line tells of an error: code and details of ours, the stack of what nobody expected. */
function errorFields(error: unknown): Record<string, unknown> {
  if (error === undefined) return {};
  if (!(error instanceof Error)) return { error: cleanText(String(error)) };
  const causes = causesOf(error);
  const tail = causes.length > 0 ? { causes } : {};
  if (error instanceof HelixFlowError) return { error: error.code, details: cleanFields(error.details), ...tail };
  return { error: error.name, stack: stackOf(error), ...tail };
}

class PinoLog implements Log {
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  debug(event: string, fields: LogFields = {}): void {
    if (this.#logger.isLevelEnabled('debug')) this.#logger.debug(cleanFields(fields), event);
  }

  info(event: string, fields: LogFields = {}): void {
    if (this.#logger.isLevelEnabled('info')) this.#logger.info(cleanFields(fields), event);
  }

  warn(event: string, fields: LogFields = {}): void {
    if (this.#logger.isLevelEnabled('warn')) this.#logger.warn(cleanFields(fields), event);
  }

  error(event: string, fields: LogFields = {}, error?: unknown): void {
    if (!this.#logger.isLevelEnabled('error')) return;
    this.#logger.error({ ...cleanFields(fields), ...errorFields(error) }, event);
  }

  with(fields: LogFields): Log {
    return new PinoLog(this.#logger.child(cleanFields(fields)));
  }
}

/** A log that writes to stderr; `silent` writes nothing. */
export function createLog(options: LogOptions): Log {
  const logger = pino(
    {
      level: options.level,
      base: cleanFields(options.fields ?? {}),
      messageKey: 'event',
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  return new PinoLog(logger);
}
