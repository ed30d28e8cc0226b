/** An error on the wire: its code and its details, never its message or its stack. */

import { type ErrorCode, type ErrorDetails, HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Reader } from '../reader.ts';

const textMaxChars = 256;

/** What a node may say of an attempt. Everything else (a key, an account, the gateway itself) is not its to judge. */
export const nodeCodes = [
  'REQUEST_MALFORMED',
  'REQUEST_UNSUPPORTED',
  'REQUEST_TOO_LARGE',
  'CONTEXT_LENGTH_EXCEEDED',
  'DEADLINE_EXCEEDED',
  'NODE_OVERLOADED',
  'NODE_DRAINING',
  'NODE_MODEL_MISSING',
  'TAB_UNCOVERED',
  'NODE_LOST',
  'RESUME_REFUSED',
  'ENGINE_FAILED',
  'ENGINE_REFUSED',
] as const satisfies readonly ErrorCode[];

/** Keeps the flat text and numbers of an error's details, bounded: they end up in sentences that clients read. */
function cleanDetails(details: object, maxChars: number): Record<string, string | number> {
  const flat = Object.entries(details).flatMap(([name, value]): [string, string | number][] => {
    if (typeof value === 'string') return [[name.slice(0, 32), value.slice(0, maxChars)]];
    return Number.isFinite(value) ? [[name.slice(0, 32), value]] : [];
  });
  return Object.fromEntries(flat.slice(0, 8));
}

/** The code, then its details as JSON text: their shape differs by code, and a newer peer's may be unknown. */
export function errorFields(error: HelixFlowError): readonly [string, string] {
  const whole = JSON.stringify(cleanDetails(error.details, textMaxChars));
  if (whole.length <= limits.errorDetailsMaxBytes) return [error.code, whole];
  return [error.code, JSON.stringify(cleanDetails(error.details, 32))];
}

/**
 * Reads both. Any code but `nodeCodes`, a later version's too, counts as a failure of the node's engine.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function readError(reader: Reader): HelixFlowError {
  const code = reader.text(64);
  const text = reader.text(limits.errorDetailsMaxBytes);
  let details: unknown;
  try {
    details = JSON.parse(text);
  } catch (cause) {
    throw new HelixFlowError('FRAME_MALFORMED', { reason: 'fail: details are not JSON' }, { cause });
  }
  if (typeof details !== 'object' || details === null || Array.isArray(details)) {
    throw new HelixFlowError('FRAME_MALFORMED', { reason: 'fail: details are no object' });
  }
  const known = nodeCodes.find((own) => own === code);
  if (known === undefined) {
    return new HelixFlowError('ENGINE_FAILED', { reason: 'the node failed with a code that has no place here' });
  }
  return new HelixFlowError(known, cleanDetails(details, textMaxChars) as ErrorDetails[typeof known]);
}
