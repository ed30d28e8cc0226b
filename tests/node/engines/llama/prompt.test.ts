/** Prompts from chats: text from users never becomes a control token. */

import '../../../support/seed.ts';
import fc from 'fast-check';
import { getLlama, LlamaLogLevel, type LlamaModel, type Token } from 'node-llama-cpp';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { embeddedModel } from '../../../../node/engines/embedded.ts';
import { readModelFile } from '../../../../node/engines/llama/gguf.ts';
import { createPromptRenderer, type PromptRenderer } from '../../../../node/engines/llama/prompt.ts';
import { tokenizePrompt } from '../../../../node/engines/llama/tokens.ts';
import { readVocabulary, type Vocabulary } from '../../../../node/engines/llama/vocabulary.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import type { ChatMessage } from '../../../../protocol/messages/chat.ts';

const chatml =
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}<|im_start|>assistant';
const renderer = (template: string): PromptRenderer =>
  createPromptRenderer({ template, controlTexts: ['<|im_start|>', '<|im_end|>', '<s>'], bosText: '<s>', eosText: '' });
const render = (template: string, messages: readonly ChatMessage[]): string =>
  renderer(template)
    .render(messages)
    .map(({ text, plain }) => (plain ? `[${text}]` : text))
    .join('');

describe('a prompt', () => {
  test('is one stretch as long as nobody writes control texts', ({ expect }) => {
    const parts = renderer(chatml).render([{ role: 'user', content: 'a < b, |c| and 😀' }]);
    expect(parts).toEqual([
      { text: '<|im_start|>user\na < b, |c| and 😀<|im_end|>\n<|im_start|>assistant', plain: false },
    ]);
  });

  test('keeps control texts of users apart, whole ones and pieces at the edges', ({ expect }) => {
    const show = (content: string): string => render(chatml, [{ role: 'user', content }]).slice(17, -32);
    expect(show('a<|im_end|>b')).toBe('a[<|im_end|>]b');
    expect(show('<|im_<|im_end|>end|>')).toBe('<|im_[<|im_end|>]end|>');
    expect(show('end <|im_st')).toBe('end [<|im_st]');
    expect(show('art|> begin')).toBe('[art|>] begin');
    expect(show('\uE0000\uE001')).toBe('[\uE000]0[\uE001]');
  });

  test('gives no more and no other text than was written', ({ expect }) => {
    const content = fc.string({
      unit: fc.constantFrom('<|im_', 'end|>', '<|im_start|>', 'x', ' ', '\uE000', '1', '\uE001'),
    });
    fc.assert(
      fc.property(content, (text) => {
        const parts = renderer("{{ messages[0]['content'] }}.").render([{ role: 'user', content: text }]);
        expect(parts.map((part) => part.text).join('')).toBe(`${text}.`);
      }),
    );
  });

  test('takes several leading system messages as one', ({ expect }) => {
    const messages: ChatMessage[] = [
      { role: 'system', content: 'one' },
      { role: 'system', content: 'two' },
      { role: 'user', content: 'hi' },
      { role: 'system', content: 'three' },
    ];
    expect(render('{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}', messages)).toBe(
      'system:one\n\ntwo;user:hi;system:three;',
    );
  });

  test('moves the system text to the user where the template knows no system role', ({ expect }) => {
    const template =
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}";
    const messages: ChatMessage[] = [
      { role: 'system', content: 'brief' },
      { role: 'user', content: 'hi' },
    ];
    expect(render(template, messages)).toBe('user:brief\n\nhi;');
  });

  test('is refused when the template refuses it', ({ expect }) => {
    const template = "{% if messages | length > 1 %}{{ raise_exception('only one') }}{% endif %}x";
    const user: ChatMessage = { role: 'user', content: 'hi' };
    let failure: unknown;
    try {
      renderer(template).render([user, user]);
    } catch (error) {
      failure = error;
    }
    expect(isHelixFlowError(failure, 'REQUEST_UNSUPPORTED') && failure.details).toMatchObject({ param: 'messages' });
  });
});

describe('the tokens of a prompt', () => {
  let model: LlamaModel;
  let vocabulary: Vocabulary;
  let prompts: PromptRenderer;

  beforeAll(async () => {
    const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: LlamaLogLevel.error });
    model = await llama.loadModel({ modelPath: embeddedModel.path, vocabOnly: true });
    vocabulary = readVocabulary(model);
    const template = readModelFile(embeddedModel.path).chatTemplate;
    prompts = createPromptRenderer({ template, controlTexts: vocabulary.controlTexts, bosText: '', eosText: '' });
  });
  afterAll(() => model.dispose());

  const controls = (messages: readonly ChatMessage[]): Token[] =>
    tokenizePrompt({ model, ...vocabulary }, prompts.render(messages)).filter((token) =>
      vocabulary.controlTokens.has(token),
    );

  const piece = fc.oneof(
    fc.constantFrom(
      '<|im_start|>',
      '<|im_end|>',
      '<s>',
      '</s>',
      '<unk>',
      '<|im_',
      'end|>',
      '<',
      '|>',
      '>',
      '\n',
      'system',
    ),
    fc.string({ maxLength: 3 }),
  );
  const content = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(''));
  const role = fc.constantFrom('system' as const, 'user' as const, 'assistant' as const);

  test('hold the same control tokens whatever users write', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.record({ role, content }), { minLength: 1, maxLength: 4 }), (messages) => {
        const harmless = messages.map((message) => ({ ...message, content: 'x' }));
        expect(controls(messages)).toEqual(controls(harmless));
      }),
    );
  });

  test('hold control tokens at all', ({ expect }) => {
    expect(controls([{ role: 'user', content: 'hi' }]).length).toBe(3);
  });
});
