/** The hello spoken by hand over a raw libp2p connection, and what any stream of it brings. */

import type { Connection, Stream } from '@libp2p/interface';
import type { Credentials } from '../../protocol/grants.ts';
import type { ProcessId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import {
  encodeHelloFrame,
  HELLO_PROTOCOL,
  type HelloFrame,
  ourLimits,
  ourVersions,
  parseHelloFrame,
} from '../../protocol/messages/hello.ts';
import { encodeFrames, FrameDecoder } from '../../protocol/session/framing.ts';

const helloOf = (credentials: Credentials): HelloFrame => ({
  type: 'hello',
  versions: ourVersions,
  process: 'ab'.repeat(16) as ProcessId,
  credentials,
  features: [],
  limits: new Map(Object.entries(ourLimits)),
  addresses: ['/ip4/127.0.0.1/tcp/4999'],
  roots: [],
});

/** Says hello and accepts whatever comes back. @returns every frame that came, up to an accept or the end. */
export async function sayHello(connection: Connection, credentials: Credentials): Promise<readonly HelloFrame[]> {
  const got: HelloFrame[] = [];
  // A connection that is closed first brings nothing, which is what the caller is told.
  const stream = await connection.newStream(HELLO_PROTOCOL).catch(() => undefined);
  if (stream?.status !== 'open') return got;
  const decoder = new FrameDecoder(limits.helloMaxBytes);
  return new Promise((resolve) => {
    stream.addEventListener('close', () => resolve(got));
    stream.addEventListener('message', ({ data }) => {
      decoder.push(data.subarray().slice(), (bytes) => {
        const frame = parseHelloFrame(bytes);
        if (frame !== undefined) got.push(frame);
        if (frame?.type !== 'accept') return;
        stream.send(encodeFrames([encodeHelloFrame({ type: 'accept' })]));
        void stream.close();
        resolve(got);
      });
    });
    stream.send(encodeFrames([encodeHelloFrame(helloOf(credentials))]));
  });
}

/** All that comes on a stream until it closes. */
export function bytesOf(stream: Stream): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  stream.addEventListener('message', ({ data }) => void chunks.push(data.subarray().slice()));
  const all = (): Uint8Array => new Uint8Array(Buffer.concat(chunks));
  return new Promise((resolve) => {
    if (stream.status !== 'open') resolve(all());
    else stream.addEventListener('close', () => resolve(all()));
  });
}
