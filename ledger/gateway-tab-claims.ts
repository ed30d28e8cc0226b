/** Claims of nodes: which are news, and how many a node may make; they move no money (design §6). */

import { HelixFlowError } from '../protocol/errors.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import type { Ms } from '../protocol/units.ts';
import { Ranges } from './gateway-tab-ranges.ts';
import { type ClaimEntry, isClaimed } from './statement.ts';

/** Of one node within a minute, and of all together. */
const perNodeMax = 16;
const perMinuteMax = 256;
const minuteMs = 60_000;
/** Runs of gateways that are remembered for each node's claims about them, and gaps within one. */
const runsMax = 4_096;
const rangesMax = 1_024;

const violation = (reason: string): HelixFlowError =>
  new HelixFlowError('PROTOCOL_VIOLATION', { reason: `claim: ${reason}` });

export class Claims {
  readonly #meshId: MeshId;
  /** By node, gateway and run: serials that were claimed. */
  readonly #claimed = new Map<string, Ranges>();
  readonly #counts = new Map<PeerId, number>();
  #count = 0;
  #minute = Number.NaN;

  constructor(meshId: MeshId) {
    this.#meshId = meshId;
  }

  /** It stands in a feed, whoever wrote it there. @returns how many of its attempts are news. */
  known({ node, gateway, attempts }: ClaimEntry): number {
    return attempts.filter(({ run, serial }) => this.#serials(`${node}${gateway}${run}`).add(serial)).length;
  }

  #serials(name: string): Ranges {
    const known = this.#claimed.get(name);
    if (known !== undefined && known.count <= rangesMax) return known;
    const fresh = new Ranges();
    this.#claimed.set(name, fresh);
    for (const [oldest] of this.#claimed) {
      if (this.#claimed.size <= runsMax) break;
      this.#claimed.delete(oldest);
    }
    return fresh;
  }

  /**
   * A node's word. @returns true when it is to be written down: it says something new, and the node has not said too much.
   * @throws HelixFlowError PROTOCOL_VIOLATION
   */
  take(from: PeerId, claim: ClaimEntry, nowMs: Ms): boolean {
    if (claim.node !== from) throw violation('of another node');
    const isNews = claim.attempts.some(
      ({ run, serial }) => !this.#serials(`${claim.node}${claim.gateway}${run}`).has(serial),
    );
    if (!isNews || !this.#hasRoom(from, nowMs)) return false;
    if (!isClaimed(claim, this.#meshId)) throw violation('its signature does not check');
    this.known(claim);
    return true;
  }

  #hasRoom(from: PeerId, nowMs: Ms): boolean {
    const minute = Math.floor(nowMs / minuteMs);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#counts.clear();
      this.#count = 0;
    }
    const count = this.#counts.get(from) ?? 0;
    if (count >= perNodeMax || this.#count >= perMinuteMax) return false;
    this.#counts.set(from, count + 1);
    this.#count += 1;
    return true;
  }
}
