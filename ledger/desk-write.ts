/** How an issuer's desk writes: entries and the names beside them, all or none, each told to the audit log. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { Audit, AuditAction } from './audit.ts';
import type { Actor } from './desk.ts';
import type { Entry } from './entry.ts';
import type { Ledger } from './ledger.ts';
import type { NamedThing, Names } from './names.ts';

export interface DeskWriterDeps {
  readonly ledger: Pick<Ledger, 'append'>;
  readonly names: Names;
  readonly audit: Audit;
}

/** What the audit log hears of. */
export type Deed = readonly [action: AuditAction, object: string];

export class DeskWriter {
  readonly #deps: DeskWriterDeps;

  constructor(deps: DeskWriterDeps) {
    this.#deps = deps;
  }

  /** What is read and then changed is read once it is known what this issuer wrote before it started. */
  async ready(): Promise<void> {
    try {
      await this.#deps.ledger.append('issuer', []);
    } catch (error) {
      // It is refused, and the audit log told, where it would be written.
      if (!isHelixFlowError(error)) throw error;
    }
  }

  /** Does it, and tells the audit log what became of it. */
  async audited<T>(actor: Actor, deeds: readonly Deed[], act: () => Promise<T>): Promise<T> {
    const note = (outcome: 'done' | 'failed', reason: string): void => {
      for (const [action, object] of deeds) this.#deps.audit.note({ action, object, actor, outcome, reason });
    };
    try {
      const done = await act();
      note('done', '');
      return done;
    } catch (error) {
      note('failed', isHelixFlowError(error) ? error.code : 'GATEWAY_FAILED');
      throw error;
    }
  }

  async append(...entries: readonly Entry[]): Promise<void> {
    await this.#deps.ledger.append('issuer', entries);
  }

  /** Writes entries about things that have names; of what was not written no name stays. */
  async appendNamed(names: readonly (readonly [NamedThing, string])[], ...entries: readonly Entry[]): Promise<void> {
    for (const [thing, name] of names) await this.#deps.names.give(thing, name);
    try {
      await this.append(...entries);
    } catch (error) {
      for (const [thing] of names) await this.#forget(thing);
      throw error;
    }
  }

  async #forget(thing: NamedThing): Promise<void> {
    try {
      await this.#deps.names.erase(thing);
    } catch (error) {
      // A store that has failed takes nothing more; why the entry was not written is what matters.
      if (!isHelixFlowError(error, 'STORE_FAILED')) throw error;
    }
  }
}
