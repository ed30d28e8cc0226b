/** What a chat request may hold, what it becomes, and what is refused by name. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { parseChatBody } from '../../../gateway/openai/chat.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import { encodeChatRequest, parseChatRequest } from '../../../protocol/messages/chat.ts';
import { peer } from '../../protocol/mesh-fixture.ts';

const user = { role: 'user', content: 'Hi' };
const body = (more: object = {}) => ({ model: 'm', messages: [user], ...more });
const messagesOf = (messages: unknown) => parseChatBody(body({ messages })).chat.messages;

/** The code and the parameter of the refusal. */
function refusal(value: unknown): readonly [string, string | undefined] {
  try {
    parseChatBody(value);
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return [error.code, (error.details as { param?: string }).param];
  }
  return ['accepted', undefined];
}

test('the smallest request asks for nothing but its messages', ({ expect }) => {
  expect(parseChatBody(body())).toEqual({
    model: 'm',
    chat: { messages: [user] },
    stream: false,
    includeUsage: false,
  });
});

test('null is the same as absent, everywhere', ({ expect }) => {
  const names = ['stream', 'stream_options', 'max_tokens', 'max_completion_tokens', 'stop', 'temperature', 'top_p'];
  const more = [
    'seed',
    'n',
    'tools',
    'tool_choice',
    'response_format',
    'logprobs',
    'logit_bias',
    'user',
    'audio',
    'helixflow',
    'x',
  ];
  const nulls = Object.fromEntries([...names, ...more].map((name) => [name, null]));
  expect(parseChatBody(body(nulls))).toEqual(parseChatBody(body()));
});

test('everything that is supported arrives', ({ expect }) => {
  const asked = parseChatBody(
    body({
      stream: true,
      stream_options: { include_usage: true, include_obfuscation: false },
      max_tokens: 9,
      stop: ['a', 'b'],
      temperature: 0,
      top_p: 1,
      seed: -3,
    }),
  );
  expect(asked).toEqual({
    model: 'm',
    chat: { messages: [user], maxTokens: 9, stop: ['a', 'b'], temperature: 0, topP: 1, seed: -3 },
    stream: true,
    includeUsage: true,
  });
});

test('max_completion_tokens wins over max_tokens', ({ expect }) => {
  expect(parseChatBody(body({ max_tokens: 9, max_completion_tokens: 4 })).chat.maxTokens).toBe(4);
  expect(parseChatBody(body({ max_tokens: 1e12 })).chat.maxTokens).toBe(10_000_000);
});

test('one stop text is a list of one, and an empty list is none', ({ expect }) => {
  expect(parseChatBody(body({ stop: 'x' })).chat.stop).toEqual(['x']);
  expect(parseChatBody(body({ stop: [] })).chat.stop).toBeUndefined();
});

describe('what a request asks of nodes', () => {
  const [near, slow] = [peer('near'), peer('slow')];
  const asked = (helixflow: unknown) => parseChatBody(body({ helixflow })).preferences;

  test('arrives as it is, without what is null', ({ expect }) => {
    const all = { prefer: 'latency', region: 'eu-central', nodes: { allow: [near], deny: [slow] } };
    expect(asked(all)).toEqual(all);
    expect(asked({ prefer: null, region: 'eu', nodes: { allow: null, deny: [slow] } })).toEqual({
      region: 'eu',
      nodes: { deny: [slow] },
    });
    expect([asked({}), asked(null), asked({ nodes: { deny: [] } })]).toEqual([undefined, undefined, undefined]);
    expect(asked({ nodes: { allow: [] } })).toEqual({ nodes: { allow: [] } });
    expect(asked({ nodes: { allow: Array(64).fill(near) } })?.nodes?.allow).toHaveLength(64);
  });

  test.for<[unknown, string, string]>([
    [{ speed: 'high' }, 'REQUEST_UNSUPPORTED', 'helixflow.speed'],
    [{ prefer: 'luck', speed: 1 }, 'REQUEST_UNSUPPORTED', 'helixflow.speed'],
    [{ nodes: { prefer: [near] } }, 'REQUEST_UNSUPPORTED', 'helixflow.nodes.prefer'],
    [{ ['x'.repeat(5_000)]: 1 }, 'REQUEST_UNSUPPORTED', `helixflow.${'x'.repeat(64)}`],
    [{ prefer: 'luck' }, 'REQUEST_MALFORMED', 'helixflow.prefer'],
    [{ region: 'EU central' }, 'REQUEST_MALFORMED', 'helixflow.region'],
    [{ region: '' }, 'REQUEST_MALFORMED', 'helixflow.region'],
    [{ nodes: [near] }, 'REQUEST_MALFORMED', 'helixflow.nodes'],
    [{ nodes: { allow: near } }, 'REQUEST_MALFORMED', 'helixflow.nodes.allow'],
    [{ nodes: { deny: [near, 'x'] } }, 'REQUEST_MALFORMED', 'helixflow.nodes.deny[1]'],
    [{ nodes: { deny: Array(65).fill(near) } }, 'REQUEST_MALFORMED', 'helixflow.nodes.deny'],
    ['price', 'REQUEST_MALFORMED', 'helixflow'],
    [[], 'REQUEST_MALFORMED', 'helixflow'],
  ])('%j is refused', ([helixflow, code, param], { expect }) => {
    expect(refusal(body({ helixflow }))).toEqual([code, param]);
  });
});

describe('messages', () => {
  test('leading system and developer messages become one', ({ expect }) => {
    const system = { role: 'system', content: 'a' };
    const developer = { role: 'developer', content: [{ type: 'text', text: 'b' }] };
    expect(messagesOf([system, developer, user, developer])).toEqual([
      { role: 'system', content: 'a\n\nb' },
      user,
      { role: 'system', content: 'b' },
    ]);
  });

  test('parts of text are joined by lines', ({ expect }) => {
    const content = [
      { type: 'text', text: 'a' },
      { type: 'text', text: '', prompt_cache_breakpoint: true },
      { type: 'text', text: 'c' },
    ];
    expect(messagesOf([{ role: 'user', content, name: 'Bob' }])).toEqual([{ role: 'user', content: 'a\n\nc' }]);
  });

  test('an assistant that refused has said its refusal', ({ expect }) => {
    const refused = { role: 'assistant', content: null, refusal: 'no', tool_calls: [], function_call: null };
    const inParts = { role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }] };
    expect(messagesOf([user, refused, inParts])).toEqual([
      user,
      { role: 'assistant', content: 'no' },
      { role: 'assistant', content: 'no' },
    ]);
  });

  test.for([
    [[], 'REQUEST_MALFORMED', 'messages'],
    ['Hi', 'REQUEST_MALFORMED', 'messages'],
    [[5], 'REQUEST_MALFORMED', 'messages[0]'],
    [[user, {}], 'REQUEST_MALFORMED', 'messages[1].role'],
    [[{ role: 'robot', content: '' }], 'REQUEST_MALFORMED', 'messages[0].role'],
    [[{ role: 'user' }], 'REQUEST_MALFORMED', 'messages[0].content'],
    [[{ role: 'user', content: null }], 'REQUEST_MALFORMED', 'messages[0].content'],
    [[{ role: 'user', content: {} }], 'REQUEST_MALFORMED', 'messages[0].content'],
    [[{ role: 'user', content: [] }], 'REQUEST_MALFORMED', 'messages[0].content'],
    [[{ role: 'user', content: [{ text: 'a' }] }], 'REQUEST_MALFORMED', 'messages[0].content[0].type'],
    [[{ role: 'user', content: [{ type: 'text' }] }], 'REQUEST_MALFORMED', 'messages[0].content[0].text'],
    [[{ role: 'user', content: [{ type: 'text', text: 1 }] }], 'REQUEST_MALFORMED', 'messages[0].content[0].text'],
    [[{ role: 'user', content: [{ type: 'image_url' }] }], 'REQUEST_UNSUPPORTED', 'messages[0].content[0]'],
    [[{ role: 'user', content: [{ type: 'input_audio' }] }], 'REQUEST_UNSUPPORTED', 'messages[0].content[0]'],
    [[{ role: 'user', content: [{ type: 'file' }] }], 'REQUEST_UNSUPPORTED', 'messages[0].content[0]'],
    [[user, { role: 'tool', tool_call_id: 'x', content: '1' }], 'REQUEST_UNSUPPORTED', 'messages[1].role'],
    [[{ role: 'function', name: 'f', content: '1' }], 'REQUEST_UNSUPPORTED', 'messages[0].role'],
    [[{ role: 'assistant', tool_calls: [{}] }], 'REQUEST_UNSUPPORTED', 'messages[0].tool_calls'],
    [[{ role: 'assistant', function_call: {} }], 'REQUEST_UNSUPPORTED', 'messages[0].function_call'],
    [[{ role: 'assistant', audio: { id: 'x' } }], 'REQUEST_UNSUPPORTED', 'messages[0].audio'],
  ] as const)('%j is %s', ([messages, code, param], { expect }) => {
    expect(refusal(body({ messages }))).toEqual([code, param]);
  });
});

test.for([
  ['model', 5],
  ['model', ''],
  ['model', 'm'.repeat(limits.modelNameMaxChars + 66)],
  ['stream', 'yes'],
  ['stream_options', []],
  ['max_tokens', 0],
  ['max_tokens', 1.5],
  ['max_completion_tokens', '5'],
  ['temperature', 2.1],
  ['top_p', -0.1],
  ['seed', 0.5],
  ['stop', 5],
  ['stop', ''],
  ['stop', Array(17).fill('x')],
  ['n', 0],
  ['n', '1'],
  ['tools', {}],
  ['tool_choice', 5],
  ['response_format', 'json'],
  ['logit_bias', []],
  ['logprobs', 1],
  ['frequency_penalty', 3],
  ['modalities', 'text'],
  ['user', 5],
  ['metadata', 'x'],
  ['prompt_cache_retention', 24],
  ['prompt_cache_options', 'x'],
] as const)('%s of %j is malformed', ([name, value], { expect }) => {
  expect(refusal(body({ [name]: value }))).toEqual(['REQUEST_MALFORMED', name]);
});

test.for([
  ['tools', [{ type: 'function', function: { name: 'f' } }]],
  ['functions', [{ name: 'f' }]],
  ['tool_choice', 'auto'],
  ['tool_choice', 'required'],
  ['tool_choice', { type: 'function', function: { name: 'f' } }],
  ['function_call', 'auto'],
  ['response_format', { type: 'json_object' }],
  ['response_format', { type: 'json_schema', json_schema: { name: 'x', schema: {} } }],
  ['n', 2],
  ['logprobs', true],
  ['top_logprobs', 3],
  ['logit_bias', { '5': 1 }],
  ['modalities', ['text', 'audio']],
  ['audio', { voice: 'alloy', format: 'wav' }],
  ['prediction', { type: 'content', content: 'x' }],
  ['frequency_penalty', 0.5],
  ['presence_penalty', -0.5],
  ['web_search_options', {}],
  ['moderation', { model: 'x' }],
  ['reasoning_effort', 'high'],
  ['verbosity', 'low'],
  ['service_tier', 'priority'],
  ['store', true],
] as const)('%s of %j is refused by name', ([name, value], { expect }) => {
  expect(refusal(body({ [name]: value }))).toEqual(['REQUEST_UNSUPPORTED', name]);
});

test('a stream that is asked to hide the lengths of its pieces is refused by name', ({ expect }) => {
  const param = 'stream_options.include_obfuscation';
  const asked = (value: unknown) =>
    refusal(body({ stream_options: { include_usage: true, include_obfuscation: value } }));
  expect(asked(true)).toEqual(['REQUEST_UNSUPPORTED', param]);
  expect(asked('yes')).toEqual(['REQUEST_MALFORMED', param]);
  expect([asked(false), asked(null)]).toEqual([refusal(body()), refusal(body())]);
});

test('values that ask for what happens anyway are accepted', ({ expect }) => {
  const defaults = {
    n: 1,
    tools: [],
    functions: [],
    tool_choice: 'none',
    function_call: 'none',
    response_format: { type: 'text' },
    logprobs: false,
    top_logprobs: 0,
    logit_bias: {},
    modalities: ['text'],
    frequency_penalty: 0,
    presence_penalty: 0,
    parallel_tool_calls: true,
    reasoning_effort: 'none',
    verbosity: 'medium',
    service_tier: 'auto',
    store: false,
    user: 'u',
    prompt_cache_options: { mode: 'x' },
    prompt_cache_retention: '24h',
    metadata: { a: 'b' },
    never_heard_of: { deep: [1] },
  };
  expect(parseChatBody(body(defaults))).toEqual(parseChatBody(body()));
});

test.for([[[]], ['x'], [null], [undefined], [5], [true]])('a body of %j is malformed', ([value], { expect }) => {
  expect(refusal(value)).toEqual(['REQUEST_MALFORMED', undefined]);
});

test('millions of wrong elements cost one refusal, not one each', ({ expect }) => {
  const many = Array(2_000_000).fill(1);
  expect(refusal(body({ messages: many }))).toEqual(['REQUEST_MALFORMED', 'messages']);
  expect(refusal(body({ stop: many }))).toEqual(['REQUEST_MALFORMED', 'stop']);
  expect(refusal(body({ messages: [{ role: 'user', content: many }] }))).toEqual([
    'REQUEST_MALFORMED',
    'messages[0].content',
  ]);
});

test('whatever is accepted is a request that a node accepts', ({ expect }) => {
  const text = fc.oneof(fc.string(), fc.array(fc.record({ type: fc.constant('text'), text: fc.string() })));
  const message = fc.record({ role: fc.constantFrom('system', 'developer', 'user', 'assistant'), content: text });
  const request = fc.record(
    {
      model: fc.string({ minLength: 1 }),
      messages: fc.array(message, { minLength: 1 }),
      max_tokens: fc.option(fc.nat()),
      temperature: fc.option(fc.float({ min: -1, max: 3, noNaN: true })),
      top_p: fc.option(fc.float({ min: -1, max: 2, noNaN: true })),
      seed: fc.option(fc.integer()),
      stop: fc.option(fc.oneof(fc.string(), fc.array(fc.string()))),
    },
    { requiredKeys: ['model', 'messages'] },
  );
  let accepted = 0;
  fc.assert(
    fc.property(
      request.map((value) => JSON.parse(JSON.stringify(value))),
      (value) => {
        if (refusal(value)[0] !== 'accepted') return;
        accepted += 1;
        const { chat } = parseChatBody(value);
        expect(parseChatRequest(encodeChatRequest(chat))).toEqual(chat);
      },
    ),
    { numRuns: 500 },
  );
  expect(accepted).toBeGreaterThan(20);
});
