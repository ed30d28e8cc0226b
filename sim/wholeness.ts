/** What must be true of the mesh when all faults are over and nobody asks: everybody is connected, and nothing is left over. */

import type { GatewaySite, NodeSite, Sites } from './sites.ts';

/** Timers that a quiet process may hold: its own loops, and a few for each connection. */
const timersOwn = 16;
const timersPerConnection = 8;

type Violate = (check: string, detail: string) => void;

/** Every gateway reaches every node. */
export function checkConnected(sites: Sites, violate: Violate): void {
  const missing = disconnected(sites);
  if (missing.length > 0) violate('connected again', missing.join('; '));
}

/** What does not reach what, as sentences. */
export function disconnected(sites: Sites): string[] {
  return sites.gateways.flatMap(({ machine, gateway }) => {
    const seen = new Set(
      gateway?.gateway
        .nodes()
        .filter(({ responsive, draining, models }) => responsive && !draining && models.length > 0)
        .map(({ peer }) => peer),
    );
    const missing = sites.nodes.filter((node) => !seen.has(node.machine.peer)).map((node) => node.machine.name);
    return missing.length === 0 ? [] : [`${machine.name} lacks ${missing.join(', ')}`];
  });
}

/** No attempt, call, slot or timer outlives the requests it was for. */
export function checkNothingLeft(sites: Sites, violate: Violate): void {
  for (const site of sites.gateways) checkGateway(site, violate);
  for (const site of sites.nodes) checkNode(site, violate);
  for (const { machine } of sites.all()) {
    const ports = machine.ports;
    if (ports === undefined) violate('all run again', `${machine.name} does not run`);
    else {
      const { timersPending } = ports.lifeline;
      const connections = ports.network.connections().length;
      const timersMax = timersOwn + timersPerConnection * connections;
      if (timersPending > timersMax) {
        violate('no leak', `${machine.name} holds ${timersPending} timers for ${connections} connections`);
      }
    }
  }
}

function checkGateway({ machine, gateway }: GatewaySite, violate: Violate): void {
  if (gateway === undefined) return;
  const calls = gateway.gateway.calls();
  if (calls > 0) violate('no leak', `${machine.name} still carries ${calls} calls`);
  const attempts = gateway.member.sessions.all().reduce((sum, session) => sum + session.attempts, 0);
  if (attempts > 0) violate('no leak', `${machine.name} still has ${attempts} attempts open`);
}

function checkNode({ machine, node, engine }: NodeSite, violate: Violate): void {
  if (node === undefined || engine === undefined) return;
  const { active, queued } = node.server.status();
  const generating = engine.stats().active;
  if (active + queued + generating > 0) {
    violate('no leak', `${machine.name} still has ${active} active, ${queued} queued, ${generating} generating`);
  }
}
