/** Real sockets against an app over a fake service. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import OpenAI from 'openai';
import { startListening } from '../../../gateway/http/listen.ts';
import type { GatewayAppOptions } from '../../../gateway/http/options.ts';
import { type Fixture, goodKey, openApp } from './fakes.ts';

export interface Door extends Fixture {
  readonly port: number;
  readonly baseUrl: string;
}

/** An app that listens on loopback. */
export async function openDoor(options: Partial<GatewayAppOptions> = {}): Promise<Door> {
  const fixture = openApp(options);
  const { app, clock } = fixture;
  const { port, baseUrl } = await startListening(app, clock, { host: '127.0.0.1', port: 0, option: '--port' });
  return { ...fixture, port, baseUrl, [Symbol.asyncDispose]: () => app.close() };
}

/** The official client, with the retries of its defaults unless told otherwise. */
export const clientOf = ({ baseUrl }: Door, maxRetries = 2): OpenAI =>
  new OpenAI({ apiKey: goodKey, baseURL: baseUrl, maxRetries });

/** A connection that keeps what it receives. */
export class Wire implements Disposable {
  readonly socket: Socket;
  text = '';
  isClosed = false;
  readonly #closed: Promise<void>;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      this.text += chunk;
    });
    socket.on('error', () => {});
    this.#closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.isClosed = true;
        resolve();
      });
    });
  }

  static async open(port: number): Promise<Wire> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new Wire(socket);
  }

  /** Writes a request for a chat. */
  ask(body: object, headers: Readonly<Record<string, string>> = {}): void {
    const text = JSON.stringify(body);
    const more = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${goodKey}\r\n${more.join('')}` +
        `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    );
  }

  /** What came until the connection closed. */
  async closed(): Promise<string> {
    await this.#closed;
    return this.text;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
