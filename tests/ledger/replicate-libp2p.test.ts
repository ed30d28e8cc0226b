/** Replication over the real network: a long feed arrives whole, also when the connection is cut on the way. */

import { describe, test } from 'vitest';
import { createLedger } from '../../ledger/create-ledger.ts';
import type { Ledger } from '../../ledger/ledger.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import type { Libp2pNetwork } from '../../protocol/adapters/network-libp2p.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { keyFromSeed } from '../../protocol/crypto.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { OwnerId, PeerId, ProcessId } from '../../protocol/ids.ts';
import { createMesh, type NewMesh } from '../../protocol/mesh.ts';
import { ourLimits } from '../../protocol/messages/hello.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import { unixMs } from '../../protocol/units.ts';
import { CuttableProxy, nextSeed, openNetwork, portIn, silentLog, untilTrue } from '../support/libp2p-world.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { keyNumber, revocationOf } from './mesh-stage.ts';

const clock = systemClock();
const tokens = createJoseTokens();

interface Peer extends AsyncDisposable {
  readonly network: Libp2pNetwork;
  readonly ledger: Ledger;
}

async function openPeer(mesh: NewMesh, isIssuer: boolean): Promise<Peer> {
  const { meshId } = mesh.mesh;
  const seed = nextSeed();
  const network = await openNetwork({ seed, meshId });
  const ports = { clock, random: systemRandom(), network, store: new MemoryStore(), tokens, log: silentLog };
  const roots = createRoots(ports, mesh.mesh);
  await roots.take({ kind: 'issuer', token: mesh.issuer.certificate });
  const ledger = createLedger(ports, {
    ...{ role: 'gateway', meshId, roots, key: keyFromSeed(seed), credentials: () => undefined },
    ...(isIssuer ? { issuer: mesh.issuer } : {}),
  });
  network.onConnection((connection) => {
    connection.admit();
    ledger.admitted(connection, infoOf(mesh, connection.peer));
  });
  await ledger.open();
  await network.start();
  return {
    network,
    ledger,
    [Symbol.asyncDispose]: async () => {
      await ledger.close();
      await network.close();
    },
  };
}

const infoOf = (mesh: NewMesh, peer: PeerId) => ({
  membership: {
    meshId: mesh.mesh.meshId,
    issuer: issuerIdOf(mesh.issuer.key.publicKey),
    ...{ peer, role: 'gateway' as const, owner: 'owner' as OwnerId, expiresMs: unixMs(clock.wallMs() + 86_400_000) },
  },
  process: '11'.repeat(16) as ProcessId,
  version: 1,
  features: new Set<string>(),
  limits: ourLimits,
  addresses: [],
});

describe('over the real network', () => {
  test('a feed arrives whole, and goes on where the connection was cut', async ({ expect }) => {
    const mesh = await createMesh({ tokens, random: systemRandom(), clock }, { name: 'real', network: 'lan' });
    await using issuer = await openPeer(mesh, true);
    await using gateway = await openPeer(mesh, false);
    const blocks = 3_000;
    for (let number = 0; number < blocks; number += 1) {
      await issuer.ledger.append('issuer', [revocationOf(keyNumber(number))]);
    }
    const proxy = new CuttableProxy();
    await proxy.listen(portIn(issuer.network.addresses()));
    try {
      const dial = () =>
        gateway.network.connect(issuer.network.self, [`/ip4/127.0.0.1/tcp/${proxy.port}`], AbortSignal.timeout(5_000));
      proxy.cutAfter(300_000);
      await dial();
      await untilTrue(() => gateway.network.connections().length === 0);
      const before = gateway.ledger.status().blocks;
      expect(before).toBeGreaterThan(0);
      expect(before).toBeLessThan(blocks);
      await dial();
      await untilTrue(() => gateway.ledger.status().blocks === blocks);
      expect(gateway.ledger.status()).toMatchObject({ blocks, frozen: [] });
      await issuer.ledger.append('issuer', [revocationOf(keyNumber(blocks))]);
      await untilTrue(() => gateway.ledger.status().blocks === blocks + 1);
    } finally {
      proxy.close();
    }
  });
});
