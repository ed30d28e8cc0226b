/** An answer that lost its node, told again under its idempotency key: as whole as it was the first time. */

import { test } from 'vitest';
import { createIdempotency } from '../../../gateway/idempotency.ts';
import type { AnswerEnd, AnswerEvents } from '../../../gateway/service.ts';
import type { RequestId } from '../../../protocol/ids.ts';
import type { EngineModel } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { quietLog } from '../../support/pair-of-sessions.ts';
import { SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, atWork, modelThat, TellingEngine, wholeText } from './told.ts';

class Ear implements AnswerEvents {
  text = '';
  end: AnswerEnd | undefined;
  readonly ends: string[] = [];

  committed(): void {}

  delta(text: string): void {
    this.text += text;
  }

  restarted(): void {
    this.text = '';
  }

  done(end: AnswerEnd): void {
    this.end = end;
    this.ends.push('done');
  }

  failed({ code }: { code: string }): void {
    this.ends.push(code);
  }
}

test.for<[string, EngineModel['continuation'], isWhole: boolean, outcomes: readonly string[]]>([
  ['went on elsewhere', 'tokens', false, ['lost', 'done']],
  ['began again', 'none', true, ['hedged', 'done']],
])(
  'an answer that %s is told whole to all who ask for it, and run once',
  async ([, continuation, isWhole, outcomes], { expect }) => {
    const mesh = new SmallMesh();
    const nodes = Array.from({ length: 2 }, () => addTelling(mesh, new TellingEngine(modelThat(continuation))));
    const keys = createIdempotency({ store: new MemoryStore(), clock: mesh.clock, log: quietLog });
    keys.open();
    const request = 'ab'.repeat(16) as RequestId;
    const call = {
      request,
      caller: accessOf(),
      model: 'm',
      chat: { messages: [{ role: 'user' as const, content: 'hi' }] },
      deadlineMs: ms(60_000),
      isWhole,
    };
    const ask = async (): Promise<Ear> => {
      const { run, isFirst } = await keys.claim({ caller: call.caller, key: 'k', body: 'b', request });
      if (isFirst) run.begin((events) => mesh.gateway.chat(call, events));
      const ear = new Ear();
      run.join(ear);
      await mesh.settle();
      return ear;
    };
    const first = await ask();
    const lost = atWork(nodes);
    lost.engine.tell(3);
    await mesh.settle();
    const second = await ask();
    lost.link.cut();
    await mesh.settle();
    const third = await ask();
    atWork(nodes).engine.finish();
    await mesh.settle();
    const fourth = await ask();
    for (const ear of [first, second, third, fourth]) {
      expect([ear.text, ear.ends, ear.end]).toEqual([wholeText, ['done'], first.end]);
    }
    expect(mesh.accounting.ends().map((end) => end?.outcome)).toEqual(outcomes);
  },
);
