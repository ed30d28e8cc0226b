/** An encrypter whose messages leave in one piece: noise hands over length and text apart, which would be two writes and two packets. */

import type { ConnectionEncrypter, MessageStream } from '@libp2p/interface';

type Factory<Components> = (components: Components) => ConnectionEncrypter;

function joinWrites<T extends MessageStream>(connection: T): T {
  const send = connection.send.bind(connection);
  connection.send = (data) => send(data.subarray());
  return connection;
}

/** `encrypter` with every send of its underlying connection joined. */
export const oneWrite =
  <Components>(encrypter: Factory<Components>): Factory<Components> =>
  (components) => {
    const inner = encrypter(components);
    const secureInbound = inner.secureInbound.bind(inner);
    const secureOutbound = inner.secureOutbound.bind(inner);
    return Object.assign(inner, {
      secureInbound: ((connection, options) => secureInbound(joinWrites(connection), options)) as typeof secureInbound,
      secureOutbound: ((connection, options) =>
        secureOutbound(joinWrites(connection), options)) as typeof secureOutbound,
    });
  };
