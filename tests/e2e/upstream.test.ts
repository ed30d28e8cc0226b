/** A node in front of an OpenAI-compatible server that already runs: here, another HelixFlow. */

import { writeFileSync } from 'node:fs';
import OpenAI from 'openai';
import { test } from 'vitest';
import { Daemons } from '../support/daemons.ts';

test('a node passes chats through to the server behind it', async ({ expect }) => {
  await using daemons = new Daemons();
  const behind = await daemons.start('behind', ['up', '--port', '0']);
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('front')]);
  const front = await daemons.start('front', ['gateway', '--port', '0']);
  const { token } = await daemons.json(['mesh', 'invite', '--role', 'node', '--data-dir', front.dir]);
  const { key } = await daemons.json(['keys', 'create', '--name', 'test', '--data-dir', front.dir]);
  const keyFile = daemons.path('upstream.key');
  writeFileSync(keyFile, String(behind.ready['apiKey']), { mode: 0o600 });
  const args = ['node', '--join', '-', '--upstream', String(behind.ready['baseUrl']), '--upstream-key-file', keyFile];
  const node = await daemons.start('node', args, String(token));
  expect(node.ready['models']).toEqual(['helix-tiny']);

  const ask = {
    model: 'helix-tiny',
    messages: [{ role: 'user' as const, content: 'What is the capital of France?' }],
    temperature: 0,
  };
  const through = new OpenAI({ baseURL: String(front.ready['baseUrl']), apiKey: String(key), maxRetries: 0 });
  const direct = new OpenAI({
    baseURL: String(behind.ready['baseUrl']),
    apiKey: String(behind.ready['apiKey']),
    maxRetries: 0,
  });
  const answer = await through.chat.completions.create(ask);
  const expected = await direct.chat.completions.create(ask);
  expect(answer.choices[0]?.message.content).toBe(expected.choices[0]?.message.content);
  expect(answer.usage?.completion_tokens).toBe(expected.usage?.completion_tokens);
  const streamed = await through.chat.completions.stream(ask).finalChatCompletion();
  expect(streamed.choices[0]?.message.content).toBe(expected.choices[0]?.message.content);
});
