/** What `helixflow up` shows people: where to point a client, ready to paste, and then a line per request. */

import type { RequestRecord } from '../gateway/http/exchange.ts';
import type { EngineModel } from '../protocol/ports.ts';
import { printable } from './output.ts';

/** What is served, and what computes it. */
export const describeModels = (models: readonly EngineModel[]): string =>
  models.map(({ name, build }) => `${name} (${build})`).join(', ');

interface Access {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly models: readonly EngineModel[];
}

const curl = ({ baseUrl, apiKey }: Access, model: string): string =>
  `curl -N ${baseUrl}/chat/completions -H 'Authorization: Bearer ${apiKey}' -H 'Content-Type: application/json' -d '{"model":"${model}","stream":true,"messages":[{"role":"user","content":"Hello!"}]}'`;

const node = ({ baseUrl, apiKey }: Access, model: string): string => `import OpenAI from 'openai'; // npm i openai
const client = new OpenAI({ baseURL: '${baseUrl}', apiKey: '${apiKey}' });
const stream = await client.chat.completions.create({ model: '${model}', stream: true, messages: [{ role: 'user', content: 'Hello!' }] });
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');`;

const python = ({ baseUrl, apiKey }: Access, model: string): string => `from openai import OpenAI  # pip install openai
client = OpenAI(base_url="${baseUrl}", api_key="${apiKey}")
stream = client.chat.completions.create(model="${model}", stream=True, messages=[{"role": "user", "content": "Hello!"}])
for chunk in stream: print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)`;

/** Everything that somebody needs to send the first request. */
export function printBanner(access: Access): string {
  const model = access.models[0]?.name ?? 'helix-tiny';
  return [
    'HelixFlow is ready: a mesh on this machine, one gateway and one node.',
    '',
    `  Base URL  ${access.baseUrl}`,
    `  API key   ${access.apiKey}`,
    `  Models    ${describeModels(access.models)}`,
    '',
    '— curl',
    curl(access, model),
    '',
    '— Node (as a file hello.mjs)',
    node(access, model),
    '',
    '— Python',
    python(access, model),
    '',
    'Ctrl-C stops it. Requests:',
  ].join('\n');
}

/** `14:03:11 POST /v1/chat/completions 200 helix-tiny 12+34 tokens 120 ms`; undefined for health checks that went well. */
export function printRequest(record: RequestRecord, time: Date): string | undefined {
  const { route, status, method, model, end, durationMs, error, outcome } = record;
  if (status < 400 && (route === '/livez' || route === '/readyz')) return undefined;
  const tokens = end === undefined ? '' : `${end.promptTokens}+${end.completionTokens} tokens`;
  const trouble = outcome === 'ok' ? '' : (error ?? outcome);
  const words = [
    time.toTimeString().slice(0, 8),
    method,
    route,
    status,
    model ?? '',
    tokens,
    `${Math.round(durationMs)} ms`,
    trouble,
  ];
  return printable(words.filter((word) => word !== '').join(' ')).slice(0, 300);
}
