/** Keeps what the root has said: the same state whatever order it was heard in, judged by no clock. */

import { isHelixFlowError } from '../errors.ts';
import { checkCertificate, type FreezeLift, type IssuerCertificate, meshIdOf } from '../grants.ts';
import type { IssuerId, MeshId } from '../ids.ts';
import { assert } from '../invariant.ts';
import { limits } from '../limits.ts';
import type { Cancel, Tokens } from '../ports.ts';
import { checkLift, checkRevocation } from '../root-tokens.ts';
import { unixMs } from '../units.ts';
import type { Roots, RootToken } from './roots.ts';

export interface RootsOptions {
  readonly meshId: MeshId;
  /** 32 bytes; hashes to `meshId`. */
  readonly rootPublicKey: Uint8Array;
}

/** A token and what it says; `about` is equal for tokens that say the same. */
type Statement = { readonly said: RootToken; readonly about: string } & (
  | { readonly kind: 'issuer'; readonly certificate: IssuerCertificate }
  | { readonly kind: 'revocation'; readonly issuer: IssuerId }
  | { readonly kind: 'lift'; readonly lift: FreezeLift }
);

/** What has to go first when there is too much. */
const ranks = { revocation: 0, issuer: 1, lift: 2 } as const;

/** What the root says has no end, and its clock may be ahead of ours: a revocation must not wait for that. */
const anyTimeMs = unixMs(8_640_000_000_000_000);

/** Of two statements the one to keep; total, so that every order of arrival keeps the same. */
const compare = (a: Statement, b: Statement): number =>
  ranks[a.kind] - ranks[b.kind] || (a.said.token < b.said.token ? -1 : a.said.token > b.said.token ? 1 : 0);

class KnownRoots implements Roots {
  readonly meshId: MeshId;
  readonly rootPublicKey: Uint8Array;
  readonly issuers = new Map<IssuerId, IssuerCertificate>();
  readonly #tokens: Tokens;
  /** In the order they were learnt. */
  readonly #statements = new Map<string, Statement>();
  readonly #texts = new Set<string>();
  /** Asked several times with each request; a revocation is never taken back. */
  readonly #revoked = new Set<IssuerId>();
  /** Those named, also those revoked. */
  readonly #named = new Map<IssuerId, IssuerCertificate>();
  readonly #successors = new Map<IssuerId, readonly IssuerCertificate[]>();
  readonly #listeners = new Set<(said: RootToken) => void>();

  constructor(tokens: Tokens, options: RootsOptions) {
    this.#tokens = tokens;
    this.meshId = options.meshId;
    this.rootPublicKey = options.rootPublicKey;
  }

  async take(said: RootToken): Promise<boolean> {
    if (this.#texts.has(said.token)) return false;
    const statement = await this.#read(said);
    if (!this.#keep(statement)) return false;
    this.#review();
    for (const listener of [...this.#listeners]) listener(said);
    return true;
  }

  async #read({ kind, token }: RootToken): Promise<Statement> {
    const { meshId, rootPublicKey } = this;
    const said = { kind, token };
    const checking = { tokens: this.#tokens, meshId, nowMs: anyTimeMs };
    switch (kind) {
      case 'issuer': {
        const certificate = await checkCertificate(token, rootPublicKey, checking);
        const { issuer, succeeds } = certificate;
        const after = succeeds && [succeeds.issuer, succeeds.last?.epoch, succeeds.last?.number].join(' ');
        return { said, kind, certificate, about: `issuer ${issuer} ${after ?? ''}` };
      }
      case 'revocation': {
        const { issuer } = await checkRevocation(token, rootPublicKey, checking);
        return { said, kind, issuer, about: `revocation ${issuer}` };
      }
      case 'lift': {
        const lift = await checkLift(token, rootPublicKey, checking);
        return { said, kind, lift, about: `lift ${lift.author} ${lift.epoch}` };
      }
    }
  }

  /** Of tokens that say the same one is kept; of too many, all revocations and then the first by `compare`. */
  #keep(statement: Statement): boolean {
    const known = this.#statements.get(statement.about);
    if (known !== undefined) {
      if (compare(known, statement) <= 0) return false;
      this.#drop(known);
    }
    this.#statements.set(statement.about, statement);
    this.#texts.add(statement.said.token);
    if (statement.kind === 'revocation') this.#revoked.add(statement.issuer);
    if (this.#statements.size <= limits.rootTokensMax) return true;
    const last = [...this.#statements.values()].reduce((worst, other) => (compare(worst, other) < 0 ? other : worst));
    if (last.kind !== 'revocation') this.#drop(last);
    return last.kind === 'revocation' || last !== statement;
  }

  #drop(statement: Statement): void {
    this.#statements.delete(statement.about);
    this.#texts.delete(statement.said.token);
  }

  #review(): void {
    this.issuers.clear();
    this.#named.clear();
    this.#successors.clear();
    for (const certificate of this.#certificates()) {
      const { issuer, succeeds } = certificate;
      const known = this.#named.get(issuer);
      if (known === undefined || (known.succeeds === undefined && succeeds !== undefined)) {
        this.#named.set(issuer, certificate);
        if (!this.isRevoked(issuer)) this.issuers.set(issuer, certificate);
      }
    }
  }

  #certificates(): IssuerCertificate[] {
    const statements = [...this.#statements.values()].filter((statement) => statement.kind === 'issuer');
    return statements.sort(compare).map(({ certificate }) => certificate);
  }

  tokens(): readonly RootToken[] {
    const newestFirst = [...this.#statements.values()].reverse();
    return newestFirst.sort((a, b) => ranks[a.kind] - ranks[b.kind]).map(({ said }) => said);
  }

  certificateOf(issuer: IssuerId): IssuerCertificate | undefined {
    return this.#named.get(issuer);
  }

  isRevoked(issuer: IssuerId): boolean {
    return this.#revoked.has(issuer);
  }

  successorsOf(issuer: IssuerId): readonly IssuerCertificate[] {
    const known = this.#successors.get(issuer) ?? this.#findSuccessors(issuer);
    if (this.#named.has(issuer)) this.#successors.set(issuer, known);
    return known;
  }

  #findSuccessors(issuer: IssuerId): readonly IssuerCertificate[] {
    const certificates = this.#certificates();
    const found: IssuerCertificate[] = [];
    const seen = new Set([issuer]);
    let generation = [issuer];
    while (generation.length > 0) {
      const older = new Set(generation);
      generation = [];
      for (const certificate of certificates) {
        const { issuer: younger, succeeds } = certificate;
        if (succeeds === undefined || !older.has(succeeds.issuer) || seen.has(younger)) continue;
        seen.add(younger);
        generation.push(younger);
        if (!this.isRevoked(younger)) found.push(certificate);
      }
    }
    return found;
  }

  lifts(): readonly FreezeLift[] {
    return [...this.#statements.values()].flatMap((statement) => (statement.kind === 'lift' ? [statement.lift] : []));
  }

  onChange(listener: (said: RootToken) => void): Cancel {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** Roots that know nothing yet; `take` tells them. */
export function createRoots(deps: { readonly tokens: Tokens }, options: RootsOptions): Roots {
  assert(meshIdOf(options.rootPublicKey) === options.meshId, 'the root key makes the mesh');
  return new KnownRoots(deps.tokens, options);
}

/**
 * Takes tokens that may be bad, as from a disk or a peer, up to the first that is.
 * @returns whether all of them hold.
 */
export async function takeAll(roots: Pick<Roots, 'take'>, said: readonly RootToken[]): Promise<boolean> {
  for (const token of said) {
    try {
      await roots.take(token);
    } catch (error) {
      if (isHelixFlowError(error, 'TOKEN_INVALID')) return false;
      throw error;
    }
  }
  return true;
}
