/** Renders a chat with the model's own template, so that text from users can never become control tokens. */

import { Template } from '@huggingface/jinja';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatMessage } from '../../../protocol/messages/chat.ts';

/** A stretch of the prompt. In `plain` text nothing is read as a control token, whatever it looks like. */
export interface PromptPart {
  readonly text: string;
  readonly plain: boolean;
}

export interface TemplateContext {
  /** The file's chat template, in Jinja. */
  readonly template: string;
  /** Texts of all control tokens of the vocabulary. */
  readonly controlTexts: readonly string[];
  readonly bosText: string;
  readonly eosText: string;
}

export interface PromptRenderer {
  /** @throws HelixFlowError REQUEST_UNSUPPORTED when the template refuses the conversation. */
  render(messages: readonly ChatMessage[]): PromptPart[];
}

/** Private-use characters that stand around the number of a stretch that was taken out. */
const open = '\uE000';
const close = '\uE001';
const reasonMaxChars = 200;

const escapeRegex = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** Takes a stretch of text out of a message and returns what stands for it. */
type Hold = (text: string) => string;

/** Hides from the template, and from the tokenizer, whatever in a message could be or become a control text. */
function createShield(controlTexts: readonly string[]): (content: string, hold: Hold) => string {
  const texts = controlTexts.filter((text) => text !== '').sort((a, b) => b.length - a.length);
  const whole = new RegExp([...texts, open, close].map(escapeRegex).join('|'), 'gu');
  const longest = texts[0]?.length ?? 0;
  const heads = new Set<string>();
  const tails = new Set<string>();
  for (const text of texts) {
    for (let cut = 1; cut < text.length; cut += 1) {
      heads.add(text.slice(0, cut));
      tails.add(text.slice(cut));
    }
  }

  /** The template's text could complete a piece of a control text at an edge; it may also trim the space there. */
  function edge(text: string, pieces: ReadonlySet<string>, cut: (length: number) => string): string {
    for (let length = Math.min(longest, text.length); length > 0; length -= 1) {
      if (pieces.has(cut(length))) return cut(length);
    }
    return '';
  }

  return (content, hold) => {
    const text = content.trim();
    const head = edge(text, heads, (length) => text.slice(-length));
    const rest = text.slice(0, text.length - head.length);
    const tail = edge(rest, tails, (length) => rest.slice(0, length));
    const middle = rest.slice(tail.length).replace(whole, hold);
    const before = content.slice(0, content.length - content.trimStart().length);
    const after = text === '' ? '' : content.slice(content.trimEnd().length);
    return `${before}${tail && hold(tail)}${middle}${head && hold(head)}${after}`;
  };
}

/** Leading system messages become one, since many templates take only one. */
function mergeSystem(messages: readonly ChatMessage[]): ChatMessage[] {
  const first = messages.findIndex(({ role }) => role !== 'system');
  const leading = first === -1 ? messages.length : first;
  if (leading < 2) return [...messages];
  const content = messages
    .slice(0, leading)
    .map((message) => message.content)
    .join('\n\n');
  return [{ role: 'system', content }, ...messages.slice(leading)];
}

/** For templates that know no system role: its text goes to the front of the first user message. */
function moveSystemToUser(messages: readonly ChatMessage[]): ChatMessage[] {
  const [system, ...rest] = messages;
  const user = rest.findIndex(({ role }) => role === 'user');
  if (system?.role !== 'system' || user === -1) return [...messages];
  return rest.map((message, index) =>
    index === user ? { ...message, content: `${system.content}\n\n${message.content}` } : message,
  );
}

/**
 * Prepares a template.
 * @throws Error of the template engine when the template does not parse or cannot render the simplest chat.
 */
export function createPromptRenderer(context: TemplateContext): PromptRenderer {
  const template = new Template(context.template);
  const shield = createShield(context.controlTexts);
  const variables = { add_generation_prompt: true, bos_token: context.bosText, eos_token: context.eosText };

  function renderHeld(messages: readonly ChatMessage[], held: string[]): string {
    const hold: Hold = (text) => `${open}${held.push(text) - 1}${close}`;
    return template.render({
      ...variables,
      messages: messages.map(({ role, content }) => ({ role, content: shield(content, hold) })),
    });
  }

  const renders = (messages: ChatMessage[]): boolean => {
    try {
      return renderHeld(messages, []).trim() !== '';
    } catch (error) {
      if (error instanceof Error) return false;
      throw error;
    }
  };
  renderHeld([{ role: 'user', content: 'hello' }], []);
  const takesSystem = renders([
    { role: 'system', content: 'be brief' },
    { role: 'user', content: 'hello' },
  ]);

  return {
    render(messages) {
      const merged = mergeSystem(messages);
      const held: string[] = [];
      let rendered: string;
      try {
        rendered = renderHeld(takesSystem ? merged : moveSystemToUser(merged), held);
      } catch (cause) {
        const why = cause instanceof Error ? cause.message.slice(0, reasonMaxChars) : 'it failed';
        const reason = `the model's chat template refuses this conversation: ${why}`;
        throw new HelixFlowError('REQUEST_UNSUPPORTED', { param: 'messages', reason }, { cause });
      }
      return splitHeld(rendered, held);
    },
  };
}

function splitHeld(rendered: string, held: readonly string[]): PromptPart[] {
  const parts: PromptPart[] = [];
  for (const [index, piece] of rendered.split(new RegExp(`${open}(\\d+)${close}`, 'u')).entries()) {
    const plain = index % 2 === 1;
    const text = plain ? held[Number(piece)] : piece;
    if (text !== undefined && text !== '') parts.push({ text, plain });
  }
  return parts;
}
