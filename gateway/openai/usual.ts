/** Requests in the shape that nearly all have, known at a glance: reading them with a schema costs more than serving them. */

import { limits } from '../../protocol/limits.ts';

type Fields = Readonly<Record<string, unknown>>;

const isAbsent = (value: unknown): value is null | undefined => value === undefined || value === null;
const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isWhole = (value: unknown, min: number): boolean =>
  isAbsent(value) || (Number.isSafeInteger(value) && (value as number) >= min);
const isWithin = (value: unknown, max: number): boolean =>
  isAbsent(value) || (typeof value === 'number' && value >= 0 && value <= max);
const isFlag = (value: unknown): boolean => isAbsent(value) || typeof value === 'boolean';
const isLong = (length: number, max: number): boolean => length >= 1 && length <= max;

/** `name@digest8`, with room for a longer part of the digest. */
export const modelMaxChars = limits.modelNameMaxChars + 65;
export const messagesMax = 10_000;
const roles: ReadonlySet<unknown> = new Set(['developer', 'system', 'user', 'assistant', 'tool', 'function']);

const isUsualOptions = (value: unknown): boolean =>
  isAbsent(value) || (isObject(value) && isFlag(value['include_usage']));

/** True for bodies that the schema of `chat.ts` surely takes, as they are. @param body Any JSON value. */
export function isUsualBody(body: unknown): body is Fields {
  if (!isObject(body)) return false;
  const { model, messages } = body;
  return (
    typeof model === 'string' &&
    isLong(model.length, modelMaxChars) &&
    Array.isArray(messages) &&
    isLong(messages.length, messagesMax) &&
    isAbsent(body['stop']) &&
    isFlag(body['stream']) &&
    isUsualOptions(body['stream_options']) &&
    isWhole(body['max_completion_tokens'], 1) &&
    isWhole(body['max_tokens'], 1) &&
    isWithin(body['temperature'], 2) &&
    isWithin(body['top_p'], 1) &&
    isWhole(body['seed'], Number.MIN_SAFE_INTEGER)
  );
}

/** The same for the schema of `messages.ts`: a role and a text, and nothing else that counts. */
export const isUsualMessage = (value: unknown): value is Fields =>
  isObject(value) &&
  typeof value['content'] === 'string' &&
  roles.has(value['role']) &&
  isAbsent(value['refusal']) &&
  isAbsent(value['tool_calls']) &&
  isAbsent(value['function_call']) &&
  isAbsent(value['audio']);
