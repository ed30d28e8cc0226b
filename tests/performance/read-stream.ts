/** One streamed answer, read piece by piece: its text, the times between pieces, and what its last chunk tells. */

import http from 'node:http';

export interface Asked {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface ReadAnswer {
  readonly requestId: string;
  readonly status: number;
  readonly text: string;
  readonly isWhole: boolean;
  readonly firstMs: number;
  /** Between one piece and the next, largest first. */
  readonly gapsMs: readonly number[];
  readonly usage: { readonly completion_tokens: number; readonly prompt_tokens: number } | undefined;
  readonly helixflow: { readonly nodes: readonly string[]; readonly splices: number } | undefined;
  readonly error: string | undefined;
  readonly ids: ReadonlySet<string>;
}

interface Chunk {
  readonly id?: string;
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[];
  readonly usage?: ReadAnswer['usage'];
  readonly helixflow?: NonNullable<ReadAnswer['helixflow']> & { readonly error?: string };
  readonly error?: { readonly code?: string };
}

/** Reads an answer to its end, however it ends. */
export function readAnswer(asked: Asked, agent: http.Agent): Promise<ReadAnswer> {
  return new Promise((resolve, reject) => {
    const startMs = performance.now();
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(asked.body) };
    const request = http.request(asked.url, { method: 'POST', agent, headers: { ...headers, ...asked.headers } });
    request.on('error', reject);
    request.on('response', (response) => {
      let rest = '';
      let text = '';
      let lastMs = 0;
      let firstMs = Number.NaN;
      let isWhole = false;
      const gapsMs: number[] = [];
      const ids = new Set<string>();
      const seen: { usage?: ReadAnswer['usage']; helixflow?: ReadAnswer['helixflow']; error?: string } = {};
      const take = (chunk: Chunk): void => {
        if (chunk.id !== undefined) ids.add(chunk.id);
        if (chunk.usage) seen.usage = chunk.usage;
        if (chunk.error !== undefined) seen.error = chunk.helixflow?.error ?? chunk.error.code ?? 'error';
        else if (chunk.helixflow !== undefined) seen.helixflow = chunk.helixflow;
        const piece = chunk.choices?.[0]?.delta?.content;
        if (piece === undefined || piece === '') return;
        const nowMs = performance.now();
        if (text === '') firstMs = nowMs - startMs;
        else gapsMs.push(nowMs - lastMs);
        lastMs = nowMs;
        text += piece;
      };
      response.setEncoding('utf8');
      response.on('data', (data: string) => {
        rest += data;
        for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
          const event = rest.slice(0, end);
          rest = rest.slice(end + 2);
          if (event === 'data: [DONE]') isWhole = true;
          else if (event.startsWith('data: ')) take(JSON.parse(event.slice(6)) as Chunk);
        }
      });
      const finish = (): void =>
        resolve({
          requestId: String(response.headers['x-request-id'] ?? ''),
          status: response.statusCode ?? 0,
          text,
          isWhole,
          firstMs,
          gapsMs: gapsMs.sort((a, b) => b - a),
          usage: seen.usage,
          helixflow: seen.helixflow,
          error: seen.error ?? (response.statusCode === 200 ? undefined : rest.slice(0, 200)),
          ids,
        });
      response.on('end', finish);
      response.on('error', finish);
    });
    request.end(asked.body);
  });
}
