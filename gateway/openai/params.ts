/** Request fields that the gateway knows beside the ones it serves: their types, and the values it must refuse. */

import { z } from 'zod';
import { issueError, unsupported } from './refuse.ts';

interface KnownParam {
  readonly type: z.ZodType;
  /** True for values that ask for nothing but what happens anyway. */
  readonly isNeutral: (value: unknown) => boolean;
  /** Why any other value is refused, and what to do. */
  readonly reason: string;
  /** The part of the value that is refused; all of it otherwise. */
  readonly part?: string;
}

const oneOf =
  (...values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);
const isEmpty = (value: unknown): boolean => Object.keys(value as object).length === 0;
const isTextFormat = (value: unknown): boolean => (value as { type: string }).type === 'text';
const isTextOnly = (value: unknown): boolean => (value as readonly unknown[]).every((kind) => kind === 'text');
const isPlainStream = (value: unknown): boolean =>
  (value as { include_obfuscation?: unknown }).include_obfuscation !== true;

// Not `z.array` and `z.record`: those would walk and copy millions of elements that nobody looks at.
const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
const list = z.custom((value) => Array.isArray(value), 'send an array');
const object = z.custom(isObject, 'send an object');
const choice = z.custom((value) => typeof value === 'string' || isObject(value), 'send a string or an object');
const penalty = z.number().min(-2).max(2);

const refusing = (type: z.ZodType, reason: string, isNeutral: KnownParam['isNeutral'] = oneOf()): KnownParam => ({
  type,
  isNeutral,
  reason,
});
const harmless = (type: z.ZodType): KnownParam => ({ type, isNeutral: () => true, reason: '' });

const noTools = 'tool calls are not supported; leave it out';
const noAudio = 'audio is not supported; ask for text only';
const noLogprobs = 'log probabilities are not supported; leave it out';
const noPenalties = 'penalties are not supported; leave it out or send 0';

/** One row per field. Fields in neither this table nor the schema of `chat.ts` are unknown, and ignored. */
const knownParams: ReadonlyMap<string, KnownParam> = new Map(
  Object.entries({
    audio: refusing(object, noAudio),
    frequency_penalty: refusing(penalty, noPenalties, oneOf(0)),
    function_call: refusing(choice, noTools, oneOf('none')),
    functions: refusing(list, noTools, isEmpty),
    logit_bias: refusing(object, 'token biases are not supported; leave it out', isEmpty),
    logprobs: refusing(z.boolean(), noLogprobs, oneOf(false)),
    metadata: harmless(object),
    modalities: refusing(list, noAudio, isTextOnly),
    moderation: refusing(object, 'moderation is not supported; leave it out'),
    n: refusing(z.int().min(1), 'one choice per request is supported; send several requests', oneOf(1)),
    parallel_tool_calls: harmless(z.boolean()),
    prediction: refusing(object, 'predicted outputs are not supported; leave it out'),
    presence_penalty: refusing(penalty, noPenalties, oneOf(0)),
    prompt_cache_key: harmless(z.string()),
    prompt_cache_options: harmless(object),
    prompt_cache_retention: harmless(z.string()),
    reasoning_effort: refusing(
      z.string(),
      'the effort of reasoning cannot be set; leave it out',
      oneOf('none', 'medium'),
    ),
    response_format: refusing(
      z.object({ type: z.string() }),
      "structured output is not supported; use {'type': 'text'}",
      isTextFormat,
    ),
    safety_identifier: harmless(z.string()),
    service_tier: refusing(z.string(), 'there are no service tiers; leave it out', oneOf('auto', 'default')),
    store: refusing(z.boolean(), 'answers are not stored; leave it out or send false', oneOf(false)),
    stream_options: {
      ...refusing(
        z.object({ include_obfuscation: z.boolean().nullish() }),
        'the lengths of pieces are not hidden; leave it out or send false',
        isPlainStream,
      ),
      part: 'include_obfuscation',
    },
    tool_choice: refusing(choice, noTools, oneOf('none')),
    tools: refusing(list, noTools, isEmpty),
    top_logprobs: refusing(z.int().min(0).max(20), noLogprobs, oneOf(0)),
    user: harmless(z.string()),
    verbosity: refusing(z.string(), 'the verbosity cannot be set; leave it out', oneOf('medium')),
    web_search_options: refusing(object, 'web search is not supported; leave it out'),
  } satisfies Record<string, KnownParam>),
);

/**
 * Refuses what is known and cannot be honoured; `null` counts as absent.
 * @throws HelixFlowError REQUEST_UNSUPPORTED, or REQUEST_MALFORMED for a value of a wrong type.
 */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(body)) {
    const param = knownParams.get(name);
    const value = body[name] ?? undefined;
    if (param === undefined || value === undefined) continue;
    const parsed = param.type.safeParse(value);
    if (!parsed.success) throw issueError(parsed.error, value, [name]);
    if (!param.isNeutral(value))
      throw unsupported(param.part === undefined ? name : `${name}.${param.part}`, param.reason);
  }
}
