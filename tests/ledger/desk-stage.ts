/** An issuer's desk with its mesh, for tests. */

import type { AuditRecord } from '../../ledger/audit.ts';
import { createDesk, type DeskDeps } from '../../ledger/create-desk.ts';
import type { Desk, InviteRequest, KeyRequest } from '../../ledger/desk.ts';
import { createNames, type Names } from '../../ledger/names.ts';
import { checkKey, type KeyGrant } from '../../protocol/grants.ts';
import type { KeyId, OwnerId } from '../../protocol/ids.ts';
import type { IssuerRecord } from '../../protocol/mesh.ts';
import { ms } from '../../protocol/units.ts';
import { failure, peer } from '../protocol/mesh-fixture.ts';
import { LedgerMesh, type Site } from './mesh-stage.ts';

export const gateway = peer('gateway');
export const anyTerms = { models: [], limits: {} };
export const userKey: KeyRequest = {
  name: 'Zoë’s laptop',
  account: undefined,
  role: 'user',
  terms: anyTerms,
  gateways: [],
};
export const nodeInvite: InviteRequest = {
  role: 'node',
  owner: 'alice' as OwnerId,
  uses: 1,
  ttl: ms(3_600_000),
  network: 'lan',
  gateways: [{ peer: gateway, addresses: ['/ip4/127.0.0.1/tcp/4001'] }],
};
export const nobodysKey = '00000000000000aa' as KeyId;

export interface Stage extends AsyncDisposable {
  readonly mesh: LedgerMesh;
  readonly site: Site;
  readonly desk: Desk;
  readonly names: Names;
  readonly noted: AuditRecord[];
  run<T>(work: Promise<T>): Promise<T>;
  /** Code and details of what the work fails with. */
  fails(work: () => Promise<unknown>): Promise<unknown>;
  /** Another desk of the same issuer, with some of it changed. */
  deskWith(changes: Partial<DeskDeps>, isOpen?: boolean): Desk;
  check(text: string): Promise<KeyGrant>;
}

export async function openStage(mesh?: LedgerMesh, issuer?: IssuerRecord): Promise<Stage> {
  const stage = mesh ?? (await LedgerMesh.create());
  const record = issuer ?? stage.mesh.issuer;
  const site = await stage.addIssuer(record);
  const { clock, random, tokens, store } = site.ports;
  const noted: AuditRecord[] = [];
  const audit = { note: (line: AuditRecord) => void noted.push(line) };
  const names = createNames(store);
  const deps: DeskDeps = { ledger: site.ledger, clock, random: random.fork('desk'), tokens, names, audit };
  const options = { mesh: stage.mesh.mesh, issuer: record, isOpen: false };
  const run = <T>(work: Promise<T>): Promise<T> => stage.run(work);
  return {
    ...{ mesh: stage, site, names, noted, run, desk: createDesk(deps, options) },
    fails: (work) => failure(() => run(work())),
    deskWith: (changes, isOpen = false) => createDesk({ ...deps, ...changes }, { ...options, isOpen }),
    check: (text) => {
      const { issuers, meshId } = site.ledger.roots;
      return run(checkKey(text, { tokens, meshId, issuers, nowMs: clock.wallMs() }));
    },
    [Symbol.asyncDispose]: () => (mesh === undefined ? stage[Symbol.asyncDispose]() : Promise.resolve()),
  };
}

/** Everything on the disk of a site, as bytes of rows whose keys begin so. */
export async function diskOf({ run, site }: Stage, prefix: string): Promise<Buffer> {
  const read = async (): Promise<Buffer> => {
    const parts: Uint8Array[] = [];
    const range = { gte: new TextEncoder().encode(prefix), lt: new TextEncoder().encode(`${prefix}\uffff`) };
    for await (const [row, value] of site.ports.store.range(range)) parts.push(row, value);
    return Buffer.concat(parts);
  };
  return await run(read());
}

export const linesOf = (noted: readonly AuditRecord[]) =>
  noted.map(({ action, object, outcome }) => [action, object, outcome]);
