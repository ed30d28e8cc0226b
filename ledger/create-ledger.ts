/** The ledger of one peer, put together: roots, heartbeats and feeds from disk, then their exchange with others. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { type IssuerCertificate, issuerIdOf } from '../protocol/grants.ts';
import type { AuthorId, EpochId, IssuerId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Roots, RootToken } from '../protocol/peer/roots.ts';
import type { Cancel, Connection } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { mayWrite, peerOf } from './authors.ts';
import { authorIdOf, type Block, type ForkProof, type OpenBlock } from './block.ts';
import { createFeeds } from './create-feeds.ts';
import type { AuthorEntry, Entry } from './entry.ts';
import type { EntryPlace, EpochHead, Feeds, HeldEntry, OpenReport, OwnFeed } from './feeds.ts';
import { firstEntry } from './first-entry.ts';
import { type Beats, createBeats } from './freshness.ts';
import { describeIssuers } from './issuer-status.ts';
import { authorOf, createIssuers, holdsWhatIsNamedBy, type Issuers } from './issuers.ts';
import type { Freshness, Ledger, LedgerOptions, LedgerPorts, LedgerStatus } from './ledger.ts';
import { Listeners } from './listeners.ts';
import { Recovery } from './recovery.ts';
import { createReplication, type Replication } from './replicate.ts';
import { createRootStore, type RootStore } from './root-store.ts';
import { createStanding, type Standing, type StandingChange } from './standing.ts';
import { Unheard } from './unheard.ts';

type Listener = (change: StandingChange | { readonly kind: 'roots' }) => void;
type Writer = 'issuer' | 'gateway';

class PeerLedger implements Ledger {
  readonly standing: Standing;
  readonly roots: Roots;
  readonly #ports: LedgerPorts;
  readonly #options: LedgerOptions;
  readonly #issuers: Issuers;
  readonly #feeds: Feeds;
  readonly #beats: Beats;
  readonly #rootStore: RootStore;
  readonly #replication: Replication;
  readonly #listeners = new Listeners<Parameters<Listener>[0]>();
  readonly #entryListeners = new Listeners<HeldEntry>();
  readonly #blockListeners = new Listeners<Block | OpenBlock>();
  readonly #settling = new Set<Promise<void>>();
  readonly #own: ReadonlyMap<Writer, AuthorId>;
  readonly #writers = new Map<Writer, OwnFeed>();
  readonly #whole = new Set<IssuerCertificate>();
  #recovery: Recovery | undefined;
  readonly #unheard: Unheard;
  #opening: Promise<OpenReport> | undefined;
  #report: OpenReport = { blocks: 0, entries: 0, damaged: [] };
  #added = 0;
  #cancelBeat: Cancel = () => {};
  #cancelRoots: Cancel = () => {};
  #isClosed = false;

  constructor(ports: LedgerPorts, options: LedgerOptions) {
    const { role, meshId, roots, issuer, key } = options;
    this.#ports = ports;
    this.#options = options;
    this.roots = roots;
    this.#issuers = createIssuers(roots);
    const isIssuer = (author: AuthorId): boolean => this.#issuers.isIssuer(author);
    // A gateway that is banned shall fill nobody's disk, whoever passes its blocks on.
    const isMuted = (author: AuthorId): boolean => !isIssuer(author) && this.standing.isBanned(peerOf(author));
    this.standing = createStanding(
      (author) => this.#issuers.counts(author),
      (author) => this.#issuers.endOf(author),
    );
    this.#own = new Map<Writer, AuthorId>([
      ...(role === 'gateway' ? ([['gateway', authorIdOf(key.publicKey)]] as const) : []),
      ...(issuer === undefined ? [] : ([['issuer', authorIdOf(issuer.key.publicKey)]] as const)),
    ]);
    this.#unheard = new Unheard(this.#own.get('issuer'));
    this.#feeds = createFeeds(
      { ...ports, random: ports.random.fork('feeds') },
      {
        meshId,
        holds: role === 'gateway' ? 'all' : 'open',
        mayWrite: (author, first, atMs) => this.#mayWrite(author, first, atMs),
        isNamed: isIssuer,
      },
      {
        entry: (held) => this.#entry(held),
        added: (block) => this.#blockAdded(block),
        forked: (proof) => this.#forked(proof),
      },
    );
    this.#beats = createBeats({ ...ports, feeds: this.#feeds }, { meshId, isIssuer });
    this.#rootStore = createRootStore(ports);
    this.#replication = createReplication(
      { ...ports, random: ports.random.fork('ledger'), feeds: this.#feeds, roots },
      { role, meshId, own: new Set(this.#own.values()), isIssuer, isMuted },
      { beat: (frame) => this.#beats.take(frame), progressed: () => this.#recovery?.progressed() },
    );
  }

  async #learnOwn(): Promise<void> {
    const { credentials, issuer } = this.#options;
    for (const token of [issuer?.certificate, credentials()?.certificate]) {
      if (token === undefined) continue;
      try {
        await this.roots.take({ kind: 'issuer', token });
      } catch (error) {
        if (!isHelixFlowError(error, 'TOKEN_INVALID')) throw error;
        this.#ports.log.warn('ledger.own-certificate', { reason: error.details.reason });
      }
    }
  }

  async #mayWrite(author: AuthorId, first: AuthorEntry, atMs: Parameters<typeof mayWrite>[2]): Promise<boolean> {
    if (this.#options.role === 'node' && first.role !== 'issuer') return false;
    const { tokens } = this.#ports;
    const { meshId, rootPublicKey } = this.roots;
    return await mayWrite(author, first, atMs, { tokens, meshId, rootPublicKey });
  }

  open(): Promise<OpenReport> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  async #open(): Promise<OpenReport> {
    const { clock } = this.#ports;
    await this.#rootStore.load(this.roots);
    await this.#learnOwn();
    this.#issuers.changed();
    for (const said of this.roots.tokens()) await this.#rootStore.keep(said);
    this.#cancelRoots = this.roots.onChange((said) => this.#said(said));
    await this.#beats.load();
    this.#report = await this.#feeds.open();
    this.#unheard.opened(this.#feeds);
    this.#beats.ready();
    for (const beat of this.#beats.newest()) this.#replication.beat(beat);
    for (const { author, epoch } of this.roots.lifts()) await this.#feeds.lift(author, epoch);
    const own = [...this.#own.values()];
    const hasWritten = own.some((author) => this.#feeds.newestOf(author) !== undefined);
    const isNeeded = this.#options.recovers ?? hasWritten;
    this.#recovery = new Recovery(clock, isNeeded, () => ({
      ...this.#replication.answers(),
      isBehind: own.some((author) => this.#replication.lacks(author)),
    }));
    void this.#beatOn();
    return this.#report;
  }

  #entry(held: HeldEntry): void {
    this.#entryListeners.tell(held);
    this.#unheard.found(held);
    this.#beats.entry(held);
    const change = this.standing.apply(held);
    if (change === undefined) return;
    this.#listeners.tell(change);
    if (change.kind === 'unban') this.#replication.reconsider();
  }

  #blockAdded(block: Block | OpenBlock): void {
    this.#added += 1;
    this.#blockListeners.tell(block);
    this.#beats.grown(block.head.header.author);
    this.#replication.added(block);
  }

  #forked(proof: ForkProof): void {
    const { author } = proof.a.header;
    this.#options.audit?.note({
      action: 'feed.forked',
      actor: 'none',
      object: `author:${author}`,
      outcome: 'done',
      reason: '',
    });
    this.#replication.forked(proof);
  }

  #said(said: RootToken): void {
    this.#issuers.changed();
    this.#whole.clear();
    const settling = this.#settle(said);
    this.#settling.add(settling);
    void settling.finally(() => this.#settling.delete(settling));
    this.#replication.said(said);
    this.#listeners.tell({ kind: 'roots' });
  }

  async #settle(said: RootToken): Promise<void> {
    const { log } = this.#ports;
    try {
      await this.#rootStore.keep(said);
      if (said.kind === 'lift') {
        for (const { author, epoch } of this.roots.lifts()) await this.#feeds.lift(author, epoch);
        this.#replication.reconsider();
      }
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      log.error('root.not-kept', { kind: said.kind, code: error.code });
    }
  }

  async #beatOn(): Promise<void> {
    const { issuer } = this.#options;
    if (issuer === undefined) return;
    try {
      await this.#recovery?.wait();
      // Before this process vouches for what it holds.
      if (!this.#unheard.isEmpty) await this.append('issuer', []);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      if (this.#isClosed) return;
      this.#ports.log.warn('ledger.not-said-again', { code: error.code });
    }
    this.#beat();
  }

  #beat(): void {
    const { issuer } = this.#options;
    const { clock, network } = this.#ports;
    if (issuer === undefined || this.#isClosed) return;
    if (this.#retiredBy() === undefined) {
      this.#replication.beat(this.#beats.sign(issuer.key, network.self));
    }
    this.#cancelBeat = clock.timer(ms(limits.issuerHeartbeatMs), () => this.#beat());
  }

  #retiredBy(): 'revoked' | 'succeeded' | undefined {
    const { issuer } = this.#options;
    if (issuer === undefined) return undefined;
    const id = issuerIdOf(issuer.key.publicKey);
    if (this.roots.isRevoked(id)) return 'revoked';
    return this.#issuers.line(id).length > 1 ? 'succeeded' : undefined;
  }

  admitted(connection: Connection, info: PeerInfo): void {
    // It may have become a member only after the start.
    void this.#learnOwn();
    this.#replication.admitted(connection, info);
  }

  isMember({ peer, issuer }: { readonly peer: PeerId; readonly issuer: IssuerId }): boolean {
    return !this.standing.isBanned(peer) && !this.roots.isRevoked(issuer);
  }

  freshness(issuer: IssuerId): Freshness {
    const line = this.#issuers.line(issuer);
    const last = line.findLast((_, at) => at === 0 || this.#holdsAllBefore(line, at));
    if (last === undefined) return { asOfMs: undefined, hasFutureHeartbeat: false };
    const author = authorOf(last);
    // Until others have had their time to tell what this disk has lost, its last heartbeat is all it knows.
    if (author === this.#own.get('issuer') && this.#recovery?.isOver === true) {
      return { asOfMs: this.#ports.clock.wallMs(), hasFutureHeartbeat: false };
    }
    return this.#beats.of(author);
  }

  holdsBefore(issuer: IssuerId): boolean {
    const line = this.#issuers.line(issuer);
    return line.every((_, at) => at === 0 || this.#holdsAllBefore(line, at));
  }

  #holdsAllBefore(line: ReturnType<Issuers['line']>, at: number): boolean {
    const heir = line[at];
    // Asked with each request; what is held stays so.
    if (heir === undefined || this.#whole.has(heir)) return true;
    const isWhole = holdsWhatIsNamedBy(heir, this.roots, (place) => this.#beats.holds(place));
    if (isWhole) this.#whole.add(heir);
    return isWhole;
  }

  authorsOf(issuer: IssuerId): readonly AuthorId[] {
    return this.#issuers.line(issuer).map(authorOf);
  }

  holderOf(issuer: IssuerId): PeerId | undefined {
    const last = this.#issuers.line(issuer).at(-1);
    if (last === undefined) return undefined;
    const author = authorOf(last);
    return author === this.#own.get('issuer') ? this.#ports.network.self : this.#beats.holderOf(author);
  }

  async #ready(as: Writer): Promise<Recovery> {
    const { meshId } = this.#options;
    if (!this.#own.has(as)) throw new HelixFlowError('ISSUER_MISSING', { meshId });
    await this.#opening;
    if (this.#recovery === undefined) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it is not open' });
    await this.#recovery.wait();
    return this.#recovery;
  }

  async append(as: Writer, entries: readonly Entry[]): Promise<readonly EntryPlace[]> {
    const recovery = await this.#ready(as);
    if (as === 'issuer') this.#checkInOffice();
    recovery.begun();
    // What no peer has given back is lost, and what stands behind it would reach nobody who comes later.
    const again = as === 'issuer' ? this.#unheard.take(this.#feeds, this.standing) : [];
    return (await this.#writer(as).append([...again, ...entries])).slice(again.length);
  }

  #checkInOffice(): void {
    const reason = this.#retiredBy();
    if (reason === undefined) return;
    throw new HelixFlowError('ISSUER_RETIRED', { issuer: issuerIdOf(this.#issuerKey().publicKey), reason });
  }

  #issuerKey() {
    const { issuer, meshId } = this.#options;
    if (issuer === undefined) throw new HelixFlowError('ISSUER_MISSING', { meshId });
    return issuer.key;
  }

  #writer(as: Writer): OwnFeed {
    let writer = this.#writers.get(as);
    if (writer === undefined) {
      const key = as === 'issuer' ? this.#issuerKey() : this.#options.key;
      writer = this.#feeds.write(key, (after) =>
        firstEntry(as, after, { ...this.#options, self: this.#ports.network.self }),
      );
      this.#writers.set(as, writer);
    }
    return writer;
  }

  async begin(): Promise<EpochId> {
    const recovery = await this.#ready('gateway');
    recovery.begun();
    return await this.#writer('gateway').begin();
  }

  onEntry(listener: (held: HeldEntry) => void): Cancel {
    return this.#entryListeners.add(listener);
  }

  onBlock(listener: Parameters<Ledger['onBlock']>[0]): Cancel {
    return this.#blockListeners.add(listener);
  }

  heads(): readonly EpochHead[] {
    return this.#feeds.heads();
  }

  read(...place: Parameters<Feeds['read']>): ReturnType<Feeds['read']> {
    return this.#feeds.read(...place);
  }

  own(as: Writer = 'gateway'): { readonly author: AuthorId; readonly epoch: EpochId | undefined } | undefined {
    const author = this.#own.get(as);
    return author && { author, epoch: this.#writers.get(as)?.epoch };
  }

  isOwn(author: AuthorId): boolean {
    return [...this.#own.values()].includes(author);
  }

  async report(proof: ForkProof): Promise<void> {
    if (await this.#feeds.acceptProof(proof)) return;
    // Of an author whose feed is not held here, as a node's of a gateway: those who hold it judge the proof.
    this.#replication.forked(proof);
  }

  onChange(listener: Listener): Cancel {
    return this.#listeners.add(listener);
  }

  status(): LedgerStatus {
    const proofs = this.#feeds.proofs().map(({ a }) => a.header);
    const heads = this.#feeds.heads();
    return {
      authors: new Set(heads.map(({ author }) => author)).size,
      blocks: this.#report.blocks + this.#added,
      open: this.#report,
      frozen: [...new Set(proofs.map(({ author }) => author))].filter((author) => this.#feeds.isFrozen(author)),
      forks: proofs.map(({ author, epoch, number }) => ({ author, epoch, number })),
      issuers: describeIssuers(this, { issuers: this.#issuers, feeds: this.#feeds }),
      writing: this.#own.size === 0 ? 'none' : this.#recovery?.isReady === true ? 'ready' : 'recovering',
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelBeat();
    this.#cancelRoots();
    this.#recovery?.close();
    this.#replication.close();
    await Promise.all(this.#settling);
    await this.#beats.close();
    await this.#feeds.close();
  }
}

/** Makes the ledger of one peer; create it before the network's `start`, and `open` it before anything is answered. */
export const createLedger = (ports: LedgerPorts, options: LedgerOptions): Ledger => new PeerLedger(ports, options);
