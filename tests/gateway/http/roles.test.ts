/** Routes and roles, cell by cell: every route of both doors, asked with every kind of key. */

import { describe, type ExpectStatic, test } from 'vitest';
import { createDoor } from '../../../gateway/http/door.ts';
import { gatewayAppDefaults } from '../../../gateway/http/options.ts';
import { type Audience, adminDoor, publicDoor, type RouteTable } from '../../../gateway/http/roles.ts';
import { InvariantError } from '../../../protocol/invariant.ts';
import { quietLog, seededRandom } from '../../protocol/mesh-fixture.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { type Bearer, bearers, type Doors, openDoors, staleness } from './bearers.ts';

/** What the tables must say; whoever changes a row changes it here, too. */
const expected: RouteTable = {
  'POST /v1/chat/completions': ['user'],
  'GET /v1/models': ['user', 'operator', 'admin'],
  'GET /v1/models/*': ['user', 'operator', 'admin'],
  'GET /v1/keys/self': ['user', 'operator', 'admin'],
  'GET /v1/usage': ['user', 'operator', 'admin'],
  'GET /v1/organization/usage/completions': ['user', 'operator', 'admin'],
  'GET /livez': 'public',
  'GET /readyz': 'public',
  'GET /admin/v1/status': ['operator', 'admin'],
  'GET /admin/v1/ledger': ['operator', 'admin'],
  'GET /admin/v1/ledger/counters': ['operator', 'admin'],
  'GET /admin/v1/ledger/heads': ['operator', 'admin'],
  'GET /admin/v1/ledger/rows': ['operator', 'admin'],
  'GET /admin/v1/peers': ['operator', 'admin'],
  'GET /admin/v1/members': ['operator', 'admin'],
  'GET /admin/v1/bans': ['operator', 'admin'],
  'POST /admin/v1/bans': ['operator', 'admin'],
  'DELETE /admin/v1/bans/:peer': ['operator', 'admin'],
  'POST /admin/v1/invites': ['admin'],
  'GET /admin/v1/audit': ['operator', 'admin'],
  'GET /admin/v1/audit/verify': ['operator', 'admin'],
  'POST /admin/v1/keys': ['admin'],
  'GET /admin/v1/keys': ['operator', 'admin'],
  'GET /admin/v1/keys/:key': ['operator', 'admin'],
  'PATCH /admin/v1/keys/:key': ['admin'],
  'POST /admin/v1/keys/:key/rotate': ['admin'],
  'POST /admin/v1/keys/:key/revoke': ['admin'],
  'POST /admin/v1/accounts': ['admin'],
  'GET /admin/v1/accounts': ['operator', 'admin'],
  'GET /admin/v1/accounts/:account': ['operator', 'admin'],
  'PATCH /admin/v1/accounts/:account': ['admin'],
  'POST /admin/v1/accounts/:account/export': ['admin'],
  'POST /admin/v1/accounts/:account/erase': ['admin'],
  'POST /admin/v1/leases/:lease/write-off': ['admin'],
  'POST /admin/v1/prices': ['admin'],
  'GET /admin/v1/prices': ['operator', 'admin'],
  'GET /admin/v1/usage': ['operator', 'admin'],
  'GET /admin/v1/requests': ['operator', 'admin'],
  'GET /admin/v1/requests/:request': ['operator', 'admin'],
};

test('the tables say who may do what', ({ expect }) => {
  expect({ ...publicDoor, ...adminDoor }).toEqual(expected);
});

const cells = (['clients', 'operators'] as const).flatMap((door) =>
  Object.entries(door === 'clients' ? publicDoor : adminDoor).flatMap(([route, audience]) =>
    bearers.map((bearer) => ({ door, route, audience, bearer, name: bearer.name })),
  ),
);

/** The statuses that a cell may have: what is wrong with the key itself counts first, then what it may not do. */
function wanted({ fault, role, isRival }: Bearer, audience: Audience): number[] {
  if (audience === 'public') return [200];
  if (fault !== undefined) return [fault];
  if (!audience.includes(role)) return [403];
  // What the issuer's desk does, it does for its own keys.
  return isRival ? [200, 409] : [200];
}

describe('a cell', () => {
  test.for(cells)('$door: $route with $name', async ({ door, route, audience, bearer }, { expect }) => {
    await using doors = await openDoors();
    const { status, body, code } = await doors.ask(door, route, bearer);
    expect(wanted(bearer, audience)).toContain(status);
    if (status === 200) return;
    expect(JSON.parse(body)).toEqual({
      error: {
        message: expect.any(String),
        type: expect.stringMatching(/^(invalid_request_error|permission_error|server_error)$/),
        param: null,
        code: expect.any(String),
      },
    });
    expect(code).toMatch(bearer.isRival && status === 409 ? /^ISSUER_MISSING$/ : /^KEY_/);
    expect([...doors.service.calls, ...doors.desk.told]).toEqual([]);
    const action = door === 'clients' ? 'request.refuse' : 'admin.request';
    const isKnown = code !== 'KEY_MISSING' && code !== 'KEY_INVALID';
    const actor = isKnown ? expect.stringMatching(/^key:[0-9a-f]{16}$/) : 'none';
    expect(doors.noted).toEqual([{ action, actor, object: route, outcome: 'refused', reason: code }]);
  });
});

describe('a gateway that its issuers have left without news', () => {
  const graceless = { aged: 'beyond the grace', ageMs: staleness.maxStaleMs + staleness.staleGraceMs + 1_000 };
  const worlds = [{ aged: 'within the grace', ageMs: staleness.maxStaleMs + 1_000 }, graceless];
  const stale = worlds.flatMap((world) => cells.map((cell) => ({ ...world, ...cell })));

  test.for(stale)('$aged: $route with $name', async ({ ageMs, door, route, audience, bearer }, { expect }) => {
    await using doors = await openDoors(ageMs);
    const answer = await doors.ask(door, route, bearer);
    const isServed = audience === 'public' || (!bearer.isStrict && ageMs !== graceless.ageMs);
    const isJudged = isServed || bearer.fault !== undefined;
    expect(isJudged ? wanted(bearer, audience) : [503]).toContain(answer.status);
    if (!isJudged) expect(answer.code).toBe('KEY_UNVERIFIABLE');
    const seconds = String(Math.floor(ageMs / 1_000));
    const isMarked = audience !== 'public' && isServed && bearer.fault === undefined;
    expect(answer.stale).toBe(isMarked ? seconds : undefined);
    if (answer.status !== 200) expect([...doors.service.calls, ...doors.desk.told]).toEqual([]);
  });
});

describe('what others have', () => {
  const answers = async (doors: Doors, name: string, routes: readonly string[], door: 'clients' | 'operators') => {
    const bearer = bearers.find((each) => each.name === name);
    if (bearer === undefined) throw new Error(`no bearer ${name}`);
    return Promise.all(routes.map((route) => doors.ask(door, route, bearer)));
  };
  const [known, unknown] = ['0000000000000000', 'ffffffffffffffff'];

  test.for(['user', 'user of another account', 'garbage', 'no key'])(
    'looks to %s like what nobody has',
    async (name, { expect }) => {
      await using doors = await openDoors();
      for (const path of ['keys/:key', 'keys/:key/rotate']) {
        const routes = [known, unknown].map((id) => `GET /admin/v1/${path.replace(':key', id)}`);
        const both = await answers(doors, name, routes, 'operators');
        expect(new Set(both.map(({ status, body }) => `${status} ${body}`)).size).toBe(1);
      }
      const publicly = [known, unknown].map((id) => `GET /v1/keys/${id}`);
      const [first, second] = await answers(doors, name, publicly, 'clients');
      expect(first?.status).toBe(404);
      expect(first?.body.replace(known, '')).toBe(second?.body.replace(unknown, ''));
    },
  );

  test('an issuer keeps from the admins of another', async ({ expect }) => {
    await using doors = await openDoors();
    const routes = [known, unknown].map((id) => `GET /admin/v1/keys/${id}`);
    const both = await answers(doors, 'admin of another issuer', routes, 'operators');
    expect(both.map(({ code }) => code)).toEqual(['ISSUER_MISSING', 'ISSUER_MISSING']);
    expect(both[0]?.body).toBe(both[1]?.body);
  });
});

describe('a route', () => {
  const door = (expect: ExpectStatic) =>
    createDoor({ clock: new ManualClock(), random: seededRandom('roles'), log: quietLog }, gatewayAppDefaults, {
      guard: { table: publicDoor, keys: { check: () => expect.unreachable() }, unknown: 'public' },
      paths: 'forgiving',
      unknownRoute: () => expect.unreachable(),
    });

  test('without a row cannot be added', async ({ expect }) => {
    const app = door(expect);
    const added = () => app.get('/v1/new', () => ({}));
    expect(added).toThrow(InvariantError);
    expect(() => app.route({ method: ['GET', 'DELETE'], url: '/v1/models', handler: () => ({}) })).toThrow(
      InvariantError,
    );
    await app.close();
  });

  test('that has a row is there', async ({ expect }) => {
    await using doors = await openDoors();
    const missing = (['clients', 'operators'] as const).flatMap((name) =>
      Object.keys(name === 'clients' ? publicDoor : adminDoor).filter((route) => {
        const [method = '', url = ''] = route.split(' ');
        return !doors.apps[name].hasRoute({ method: method as 'GET', url });
      }),
    );
    expect(missing).toEqual([]);
  });
});
