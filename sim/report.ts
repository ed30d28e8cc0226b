/** A run as one file to look at: a lane for each machine, its faults, and what became of the requests. */

import type { WatchedRequest } from './checkers.ts';
import type { Fault } from './faults.ts';
import type { Played } from './run.ts';

const width = 1_100;
const left = 110;
const laneHeight = 14;
const chartHeight = 120;

const faultColours: Readonly<Record<Fault['kind'], string>> = {
  partition: '#d97706',
  oneWay: '#f59e0b',
  blackHole: '#78350f',
  slowLink: '#a3a3a3',
  reset: '#be123c',
  crash: '#dc2626',
  pause: '#7c3aed',
  clockSkew: '#0891b2',
  nodeCrash: '#ef4444',
  nodePause: '#8b5cf6',
  nodeReset: '#e11d48',
  engineStall: '#4f46e5',
  engineCrash: '#9333ea',
  engineSlow: '#818cf8',
  diskSlow: '#65a30d',
  diskFull: '#166534',
  diskHoles: '#84cc16',
  diskRestored: '#0f766e',
  diskCrash: '#b91c1c',
  split: '#ea580c',
  replay: '#0284c7',
  lyingNode: '#c026d3',
  lyingGateway: '#86198f',
};

const outcomeColours = {
  done: '#16a34a',
  cancelled: '#9ca3af',
  lost: '#111827',
  failed: '#dc2626',
  open: '#f59e0b',
} as const;
type Shown = keyof typeof outcomeColours;

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeText = (text: string): string => text.replace(/[&<>"]/g, (character) => escapes[character] ?? character);

/** Machines that a fault touches, by their numbers. */
function touched(fault: Fault): readonly number[] {
  switch (fault.kind) {
    case 'partition':
    case 'split':
    case 'oneWay':
      return fault.machines;
    case 'blackHole':
      return [fault.from, fault.to];
    default:
      return [fault.machine];
  }
}

/** Draws on one axis of time. */
class Drawing {
  readonly #played: Played;
  readonly #endMs: number;

  constructor(played: Played) {
    this.#played = played;
    this.#endMs = played.result.virtualSeconds * 1_000;
  }

  #x(atMs: number): number {
    return Math.round((left + ((width - left) * atMs) / this.#endMs) * 10) / 10;
  }

  #bar(fromMs: number, toMs: number, y: number, look: { height: number; fill: string; title: string }): string {
    const x = this.#x(fromMs);
    const long = Math.max(1.5, this.#x(toMs) - x);
    return `<rect x="${x}" y="${y}" width="${long.toFixed(1)}" height="${look.height}" fill="${look.fill}"><title>${escapeText(look.title)}</title></rect>`;
  }

  #axis(height: number): string {
    const marks: string[] = [];
    for (let atMs = 0; atMs <= this.#endMs; atMs += 10_000) {
      const x = this.#x(atMs);
      marks.push(`<line x1="${x}" x2="${x}" y1="0" y2="${height}" class="mark"/>`);
      marks.push(`<text x="${x + 2}" y="${height + 10}">${atMs / 1_000} s</text>`);
    }
    return marks.join('');
  }

  /** A lane for each machine: its faults below, the answers it served above. */
  lanes(): string {
    const { machines, peers, faults, requests } = this.#played;
    const laneOf = new Map(peers.map((peer, at) => [peer, at * laneHeight]));
    const names = machines.map((name, at) => `<text x="0" y="${at * laneHeight + 10}">${escapeText(name)}</text>`);
    const answers = requests.flatMap((request) => {
      const y = laneOf.get(request.servedBy ?? '');
      if (y === undefined) return [];
      const fill = outcomeColours[shownOf(request)];
      const title = `request ${request.facts.number}: ${shownOf(request)}`;
      return [this.#bar(request.facts.startMs, request.endMs ?? this.#endMs, y + 2, { height: 3, fill, title })];
    });
    const bars = faults.flatMap((fault) =>
      touched(fault).map((machine) => {
        const look = { height: 5, fill: faultColours[fault.kind], title: fault.kind };
        return this.#bar(fault.atMs, fault.untilMs, machine * laneHeight + 7, look);
      }),
    );
    const height = machines.length * laneHeight;
    return svg(height + 14, [this.#axis(height), ...names, ...answers, ...bars]);
  }

  /** How many requests ended in each second, by how. */
  outcomes(): string {
    const seconds = new Map<number, Record<Shown, number>>();
    for (const request of this.#played.requests) {
      const second = Math.floor((request.endMs ?? request.facts.startMs) / 1_000);
      const counts = seconds.get(second) ?? { done: 0, cancelled: 0, lost: 0, failed: 0, open: 0 };
      counts[shownOf(request)] += 1;
      seconds.set(second, counts);
    }
    const total = (counts: Record<Shown, number>): number =>
      Object.values(counts).reduce((sum, count) => sum + count, 0);
    const most = Math.max(1, ...[...seconds.values()].map(total));
    const bars = [...seconds].flatMap(([second, counts]) => {
      let y = chartHeight;
      return (Object.keys(outcomeColours) as Shown[]).map((shown) => {
        const height = (chartHeight * counts[shown]) / most;
        y -= height;
        const look = { height, fill: outcomeColours[shown], title: `${second} s: ${counts[shown]} ${shown}` };
        return height === 0 ? '' : this.#bar(second * 1_000, second * 1_000 + 900, y, look);
      });
    });
    const label = `<text x="0" y="10">ends, up to</text><text x="0" y="22">${most} a second</text>`;
    return svg(chartHeight + 14, [this.#axis(chartHeight), label, ...bars]);
  }
}

const shownOf = (request: WatchedRequest): Shown => request.outcome?.kind ?? 'open';

const svg = (height: number, parts: readonly string[]): string =>
  `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">${parts.join('')}</svg>`;

const row = (name: string, value: unknown): string =>
  `<tr><th>${escapeText(name)}</th><td>${escapeText(typeof value === 'string' ? value : JSON.stringify(value))}</td></tr>`;

const legend = (colours: Readonly<Record<string, string>>): string =>
  Object.entries(colours)
    .map(([name, colour]) => `<span><i style="background:${colour}"></i>${escapeText(name)}</span>`)
    .join(' ');

const style = `body{font:14px system-ui,sans-serif;margin:24px;color:#111827;background:#fff}text{font-size:9px;fill:#6b7280}
.mark{stroke:#e5e7eb}th{text-align:left;padding-right:16px;vertical-align:top}td{font-family:ui-monospace,monospace}
i{display:inline-block;width:10px;height:10px;margin-right:4px}span{margin-right:12px;font-size:12px}.bad{color:#dc2626}`;

/** The whole page, with nothing to fetch. */
export function renderReport(played: Played): string {
  const { result, scenario, faults } = played;
  const drawing = new Drawing(played);
  const kinds = new Set(faults.map(({ kind }) => kind));
  const shownFaults = Object.fromEntries(
    Object.entries(faultColours).filter(([kind]) => kinds.has(kind as Fault['kind'])),
  );
  const broken = result.violations.map(({ atMs, check, detail }) => {
    return `<li class="bad">${(atMs / 1_000).toFixed(3)} s, ${escapeText(check)}: <code>${escapeText(detail)}</code></li>`;
  });
  const facts = [
    row('seed', result.seed),
    row('trace hash', result.traceHash),
    row('events', `${result.events}, ${result.eventsPerSecond} per second of real time`),
    row('virtual time', `${result.virtualSeconds} s`),
    row('effects of faults', result.faults),
    row('requests', result.requests),
    ...(result.trust === undefined ? [] : [row('revocations and bans', result.trust)]),
    row('play it again', `helixflow sim run --scenario ${result.scenario} --seed ${result.seed}`),
  ];
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escapeText(result.scenario)}, seed ${result.seed}</title>
<style>${style}</style><h1>${escapeText(result.scenario)}, seed ${result.seed}</h1><p>${escapeText(scenario.about)}</p>
<table>${facts.join('')}</table><h2>Broken promises: ${broken.length}</h2><ul>${broken.join('')}</ul>
<h2>Requests</h2><p>${legend(outcomeColours)}</p>${drawing.outcomes()}
<h2>Machines</h2><p>${legend(shownFaults)}</p>${drawing.lanes()}</html>
`;
}
