/** Yamux, whose new streams survive that their connection ends in the moment they are opened. */

import { yamux } from '@chainsafe/libp2p-yamux';

type Init = Parameters<typeof yamux>[0];
type Make = ReturnType<typeof yamux>;

/** What of a stream is guarded: yamux tells of it in a microtask of its own, where nobody catches what it throws. */
interface OpenedStream {
  sendWindowUpdate(): void;
  abort(error: Error): void;
}

interface OpeningMuxer {
  onCreateStream(...args: unknown[]): OpenedStream;
}

const isClosed = (error: unknown): error is Error => error instanceof Error && error.name === 'StreamStateError';

/**
 * As `yamux`. Where a connection closes between the opening of a stream and the microtask that announces it, yamux 8
 * throws from that microtask, which would end the process; here the stream is aborted, as all others of the connection.
 */
export const guardedYamux =
  (init: Init): Make =>
  (...components) => {
    const factory = yamux(init)(...components);
    const create = factory.createStreamMuxer.bind(factory);
    factory.createStreamMuxer = (connection) => {
      const muxer = create(connection);
      const opening = muxer as unknown as OpeningMuxer;
      const open = opening.onCreateStream.bind(opening);
      opening.onCreateStream = (...args) => {
        const stream = open(...args);
        const announce = stream.sendWindowUpdate.bind(stream);
        stream.sendWindowUpdate = () => {
          try {
            announce();
          } catch (error) {
            if (!isClosed(error)) throw error;
            stream.abort(error);
          }
        };
        return stream;
      };
      return muxer;
    };
    return factory;
  };
