/** A plain HTTP load: requests on kept-alive connections, or streams with the time of their first content. */

import http from 'node:http';

export interface Target {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

function post(target: Target, agent: http.Agent): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(target.body),
      ...target.headers,
    };
    const request = http.request(target.url, { method: 'POST', agent, headers }, resolve);
    request.on('error', reject);
    request.end(target.body);
  });
}

async function readAll(response: http.IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response) text += chunk;
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}: ${text.slice(0, 300)}`);
  return text;
}

/** Sends requests from `connections` connections for `seconds`. @returns how many were answered. */
export async function requests(target: Target, connections: number, seconds: number): Promise<number> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  const untilMs = performance.now() + seconds * 1_000;
  let answered = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < untilMs) {
        await readAll(await post(target, agent));
        answered += 1;
      }
    }),
  );
  agent.destroy();
  return answered;
}

export interface StreamResult {
  readonly firstContentMs: number;
  readonly tokens: number;
  readonly isWhole: boolean;
}

async function stream(target: Target, agent: http.Agent): Promise<StreamResult> {
  const startMs = performance.now();
  const response = await post(target, agent);
  if (response.statusCode !== 200) await readAll(response);
  response.setEncoding('utf8');
  let firstContentMs = Number.NaN;
  let tokens = 0;
  let tail = '';
  for await (const chunk of response as AsyncIterable<string>) {
    tokens += chunk.split('"content":" ').length - 1;
    if (tokens > 0 && Number.isNaN(firstContentMs)) firstContentMs = performance.now() - startMs;
    tail = (tail + chunk).slice(-32);
  }
  return { firstContentMs, tokens, isWhole: tail.endsWith('data: [DONE]\n\n') };
}

/** Opens `count` streams, evenly spread over `spreadMs`, and reads each to its end. */
export async function streams(target: Target, count: number, spreadMs: number): Promise<StreamResult[]> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: count });
  const results = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      await new Promise((resolve) => setTimeout(resolve, (index * spreadMs) / count));
      return stream(target, agent);
    }),
  );
  agent.destroy();
  return results;
}

/** The value below which `share` (0 to 1) of `values` lie. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
