/** Answers that another node had begun: what the engine is asked, what is counted, and what is refused. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { readAsked } from '../../node/asked.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { encodeChatRequest } from '../../protocol/messages/chat.ts';
import { encodeResume } from '../../protocol/messages/resume.ts';
import type { Resume } from '../../protocol/ports.ts';
import { garbageOf } from '../support/frames.ts';
import { ScriptedEngine, scriptedModel } from '../support/scripted-engine.ts';
import { NodeStage } from './stage.ts';

const resume: Resume = { tokenIds: [7, 8, 9], text: 'Once upon', tokens: 3 };
const able = (): NodeStage => new NodeStage(new ScriptedEngine(1, [{ ...scriptedModel(), continuation: 'tokens' }]));

describe('an answer that goes on', () => {
  test('reaches the engine with what was received of it', async ({ expect }) => {
    const stage = able();
    const seen = stage.open({ resume });
    const { request } = stage.engine.running[0] ?? {};
    expect(request).toEqual({ model: 'm', chat: { messages: [{ role: 'user', content: 'hi' }] }, resume });
    void stage.engine.running[0]?.emit(' a time');
    await stage.finish();
    expect([seen.texts, seen.ends]).toEqual([[' a time'], ['done']]);
  });

  test('is charged no prompt for what was received of it', ({ expect }) => {
    const stage = able();
    stage.open({ resume });
    stage.open();
    const [resumed, fresh] = stage.works;
    expect(resumed?.start.bodyBytes).toBe(fresh?.start.bodyBytes);
  });

  test('has as many tokens left as it did not have before', async ({ expect }) => {
    const stage = able();
    const seen = stage.open({ resume, chat: { maxTokens: 5 } });
    const [work] = stage.works;
    for (const text of ['one', 'two', 'three']) void stage.engine.running[0]?.emit(text);
    await stage.settle();
    expect(work?.start.sent().tokens).toBe(2);
    seen.cancel();
    await stage.settle();
    expect([work?.start.acknowledgedTokens(), work?.ends]).toEqual([
      2,
      [{ kind: 'cancelled', promptTokens: expect.any(Number), completionTokens: 2 }],
    ]);
    expect(seen.said).toEqual([expect.objectContaining({ type: 'cancelled', completionTokens: 2 })]);
  });

  test('has none left where it had them all', ({ expect }) => {
    const body = encodeChatRequest({ messages: [{ role: 'user', content: 'hi' }], maxTokens: 2 });
    const tail = encodeResume(resume);
    const asked = readAsked({ resumeBytes: tail.length }, Buffer.concat([body, tail]));
    expect([asked.tokensLeft, asked.chatBytes]).toEqual([0, body.length]);
  });

  test('is refused where the model goes on from nothing, and begins no work', ({ expect }) => {
    const stage = new NodeStage();
    expect([stage.open({ resume }).ends, stage.works, stage.engine.running]).toEqual([['RESUME_REFUSED'], [], []]);
  });

  test('reaches the engine also where it waited', async ({ expect }) => {
    const stage = able();
    stage.open();
    stage.open({ resume });
    await stage.finish();
    expect(stage.engine.running[0]?.request.resume).toEqual(resume);
  });
});

describe('what is no resume', () => {
  test('is refused, and no work begins', ({ expect }) => {
    const stage = able();
    expect([stage.open({ resumeBytes: new Uint8Array([1, 2, 3]) }).ends, stage.works]).toEqual([
      ['REQUEST_MALFORMED'],
      [],
    ]);
  });

  test('is found in whatever stands at the end of a body, and ends in REQUEST_MALFORMED and nothing else', ({
    expect,
  }) => {
    const chat = encodeChatRequest({ messages: [{ role: 'user', content: 'hi' }] });
    const tails = fc.oneof(garbageOf(fc.constant(encodeResume(resume))), fc.constant(encodeResume(resume)));
    fc.assert(
      fc.property(tails, fc.integer({ min: -3, max: 3 }), fc.boolean(), (tail, off, isHuge) => {
        const body = Buffer.concat([chat, tail]);
        const resumeBytes = isHuge ? body.length + 1 + tail.length : Math.max(0, tail.length + off);
        try {
          const asked = readAsked({ resumeBytes }, body);
          expect(asked.chatBytes + resumeBytes).toBe(body.length);
        } catch (error) {
          expect(isHelixFlowError(error, 'REQUEST_MALFORMED')).toBe(true);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('is a resume that is longer than its body', ({ expect }) => {
    expect(() => readAsked({ resumeBytes: 3 }, new Uint8Array(2))).toThrow(
      expect.objectContaining({ code: 'REQUEST_MALFORMED' }),
    );
  });
});
