/** `helixflow mesh handover`: an issuer's authority goes to another gateway, in three steps that the root binds. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import {
  checkCertificate,
  type IssuerCertificate,
  issuerIdOf,
  type Succession,
  signCertificate,
} from '../../protocol/grants.ts';
import {
  encodeHandoverGrant,
  encodeHandoverRequest,
  parseHandoverGrant,
  parseHandoverRequest,
} from '../../protocol/handover.ts';
import type { IssuerId, MeshId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, encodeIdentityRecord, issuerOf, parseIdentityRecord } from '../../protocol/mesh.ts';
import type { RootToken } from '../../protocol/peer/roots.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { type Admin, openAdmin } from '../admin.ts';
import { noteAudit, noteDeed } from '../audit-note.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { meshHandoverOptions } from '../config/mesh-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { readFileIfAny, writeFileAtomic } from '../files.ts';
import { holdDataDir } from '../holder.ts';
import { installIssuer, readMeshOrFail } from '../mesh-files.ts';
import { openRoot } from '../root-key.ts';

type HandoverConfig = ConfigOf<typeof meshHandoverOptions>;

const unfit = (reason: string): HelixFlowError => new HelixFlowError('CONFIG_INVALID', { reason });

/** The option itself, or what stdin holds for `-`. */
async function readText(option: string, { readLine }: CommandContext): Promise<string> {
  return option === '-' ? readLine(3 * limits.tokenMaxChars) : option;
}

/** The key that a request was made with; kept until its grant comes. */
async function readNextKey(dir: DataDir): Promise<SigningKey | undefined> {
  const text = await readFileIfAny(dir.nextIssuerFile);
  return text === undefined ? undefined : parseIdentityRecord(text, dir.nextIssuerFile);
}

async function prepare({ common, output }: CommandContext): Promise<number> {
  const dir = await openDataDir(common.dataDir, 'read');
  const { mesh } = await readMeshOrFail(dir);
  const kept = await readNextKey(dir);
  const key = kept ?? createIdentity(systemRandom());
  const issuer = issuerIdOf(key.publicKey);
  if (kept === undefined) {
    await writeFileAtomic(dir.nextIssuerFile, encodeIdentityRecord(key));
    await noteDeed(dir, { action: 'handover.prepare', object: `issuer:${issuer}` }, 'mesh handover');
  }
  const request = encodeHandoverRequest(mesh.meshId, key);
  output.data({ request, issuer, meshId: mesh.meshId }, request);
  output.note('Where the root key is: helixflow mesh handover --to <this request>');
  return 0;
}

/**
 * What the next issuer takes over: from the one that was named (a root's own directory may know none), that of this
 * directory, or the only one in office. Another handover from it must not be known here, or it is of this very request.
 */
async function chooseSuccession(admin: Admin, from: IssuerId | undefined, next: IssuerId): Promise<Succession> {
  const { issuers } = await admin.call('ledger.status', {});
  const here = admin.known.issuer === undefined ? undefined : issuerOf(admin.known.issuer).issuer;
  const others = issuers.filter(({ isRevoked, succeededBy }) => !isRevoked && succeededBy === undefined);
  const wanted = from ?? here ?? (others.length === 1 ? others[0]?.issuer : undefined);
  if (wanted === undefined) {
    throw unfit(
      `--from is missing: the issuers are ${others.map(({ issuer }) => issuer).join(', ') || 'not known here'}`,
    );
  }
  if (next === wanted) throw unfit('the request is of the issuer that is to be succeeded');
  const { newest, succeededBy: heir } = issuers.find(({ issuer }) => issuer === wanted) ?? {};
  const before = issuers.find(({ issuer }) => issuer === next)?.succeeds;
  // Once more for the same request: what was signed for it then holds.
  if (before?.issuer === wanted) return before;
  if (heir !== undefined) {
    throw unfit(`issuer ${wanted} has handed its authority over already; in office is ${heir}: --from ${heir}`);
  }
  return { issuer: wanted, ...(newest === undefined ? {} : { last: newest }) };
}

/** For whoever is asked for a passphrase next, and may still think better of it. */
const revokingNote = (old: IssuerId): string =>
  [
    `--revoke takes issuer ${old} back: every membership, invite and API key by it ends as this becomes known, for good.`,
    'Each peer that it admitted then needs a new invite of the new issuer (--join), and each client a new key.',
  ].join('\n');

async function sign(config: HandoverConfig, to: string, context: CommandContext): Promise<number> {
  const { publicKey, meshId } = parseHandoverRequest(await readText(to, context));
  await using admin = await openAdmin(context.common.dataDir, 'mesh handover');
  const { mesh } = admin.known;
  if (meshId !== mesh.meshId) throw new HelixFlowError('MESH_MISMATCH', { theirs: meshId, ours: mesh.meshId });
  const issuer = issuerIdOf(publicKey);
  const succeeds = await chooseSuccession(admin, config.from as IssuerId | undefined, issuer);
  const old = succeeds.issuer;
  if (config.revoke) context.output.note(revokingNote(old));
  const root = await openRoot(admin.dir, meshId, config, context);
  const signing = { tokens: createJoseTokens(), nowMs: systemClock().wallMs() };
  const certificate = await signCertificate({ meshId, issuer, publicKey, succeeds }, root.key, signing);
  const revocation = config.revoke ? await signRevocation({ meshId, issuer: old }, root.key, signing) : undefined;
  const { name = 'mesh', network, isOpen = false } = mesh;
  const grant = encodeHandoverGrant({
    certificate,
    ...(revocation === undefined ? {} : { revocation }),
    mesh: { name, network, isOpen },
  });
  await admin.takeRoots([
    { kind: 'issuer', token: certificate },
    ...(revocation === undefined ? [] : [{ kind: 'revocation', token: revocation } as const]),
  ]);
  context.output.data({ grant, meshId, issuer, succeeds, revoked: config.revoke }, grant);
  context.output.note(
    [
      `Issuer ${issuer} may take over from ${old}${succeeds.last === undefined ? '' : `, whose block ${succeeds.last.number} is the last one known here`}.`,
      'At the gateway that asked, while it is stopped: helixflow mesh handover --accept <this grant>',
      'Once it is accepted, make a new backup there: one from before does not hold the new issuer’s key.',
    ].join('\n'),
  );
  return 0;
}

/** @throws HelixFlowError TOKEN_INVALID when the grant is for another request, or not by the root. */
async function checkGrant(certificate: string, key: SigningKey, dir: DataDir): Promise<IssuerCertificate> {
  const { mesh } = await readMeshOrFail(dir);
  const checking = { tokens: createJoseTokens(), meshId: mesh.meshId, nowMs: systemClock().wallMs() };
  const named = await checkCertificate(certificate, mesh.rootPublicKey, checking);
  if (named.issuer === issuerIdOf(key.publicKey)) return named;
  throw new HelixFlowError('TOKEN_INVALID', { reason: 'the handover grant answers another request' });
}

async function accept(given: string, context: CommandContext): Promise<number> {
  const dir = await openDataDir(context.common.dataDir, 'read');
  const { meshId } = (await readMeshOrFail(dir)).mesh;
  const grant = parseHandoverGrant(await readText(given, context));
  const issuer = await install(dir, grant, meshId);
  const tokens: RootToken[] = [
    { kind: 'issuer', token: grant.certificate },
    ...(grant.revocation === undefined ? [] : [{ kind: 'revocation', token: grant.revocation } as const]),
  ];
  await using admin = await openAdmin(context.common.dataDir, 'mesh handover');
  await admin.takeRoots(tokens);
  context.output.data({ meshId, issuer, dataDir: dir.path }, issuer);
  context.output.note(`This directory’s gateway is issuer ${issuer} from its next start: helixflow gateway`);
  return 0;
}

async function install(dir: DataDir, grant: ReturnType<typeof parseHandoverGrant>, meshId: MeshId): Promise<IssuerId> {
  await using _hold = await holdDataDir(dir, 'mesh handover');
  const key = await readNextKey(dir);
  if (key === undefined) throw unfit('nothing was prepared here: run helixflow mesh handover --prepare first');
  const { issuer } = await checkGrant(grant.certificate, key, dir);
  await installIssuer(dir, { meshId, key, certificate: grant.certificate }, grant.mesh);
  // The root's word itself may be known here already, from peers or from having signed it.
  const object = `issuer:${issuer}`;
  await noteAudit(dir, { action: 'mesh.handover', actor: 'local', object, outcome: 'done', reason: '' });
  return issuer;
}

export const runMeshHandover: RunCommand<typeof meshHandoverOptions> = async (config, context) => {
  const { to, accept: given } = config;
  const steps = [config.prepare, to !== undefined, given !== undefined].filter(Boolean).length;
  if (steps !== 1) throw unfit('give one of --prepare, --to <request> and --accept <grant>');
  if (to === undefined && (config.revoke || config.from !== undefined)) {
    throw unfit('--from and --revoke go with --to <request>');
  }
  if (to !== undefined) return sign(config, to, context);
  return given === undefined ? prepare(context) : accept(given, context);
};
