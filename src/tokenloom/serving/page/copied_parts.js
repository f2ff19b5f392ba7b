// What is shown of passages that are copied from a training text.

import { copiedParts, countCopied, passagesAfter } from "./copied.js";
import { counted, whole } from "./format.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const QUOTED = 40; // characters before and after a passage

/** A prompt and the text after it, with the copied passages underlined that reach into the text. */
export function underlined(prompt, text, found) {
  const characters = [...prompt, ...text];
  const length = [...prompt].length;
  const passages = passagesAfter(found?.passages ?? [], length);
  const marked = (from, to) =>
    copiedParts(characters, passages, from, to).map(({ text, passage }) =>
      passage ? html`<mark class="copied" title="Copied from ${sourceText(passage)}">${text}</mark>` : text,
    );
  return html`<b>${marked(0, length)}</b>${marked(length, characters.length)}`;
}

/** Where a passage is in the training text. */
export function sourceText({ position, before, after }) {
  const start = before ? `…${[...before].slice(-QUOTED).join("")}` : "";
  const end = after ? `${[...after].slice(0, QUOTED).join("")}…` : "";
  return `token ${whole(position)} of the training text: “${`${start} [ copied ] ${end}`.replace(/\s+/g, " ").trim()}”`;
}

/** How much of a text after a prompt is copied; `found` is null while that is not known. */
export function copiedNote(found, promptLength, length) {
  const passages = passagesAfter(found?.passages ?? [], promptLength);
  if (!passages.length) return nothing;
  const longest = passages.reduce((best, one) => (one.end - one.start > best.end - best.start ? one : best));
  return html`<p class="soft" data-copied=${countCopied(passages, promptLength)}>
    <span class="copied">Underlined</span>: ${whole(countCopied(passages, promptLength))} of ${counted(length, "character")}
    in ${counted(passages.length, "passage")}. ${passages.length > 1 ? "The longest" : "It"} is from ${sourceText(longest)}.
  </p>`;
}

/** With what the texts were compared. `replies` are those of the server, null for one that is missing. */
export function comparedNote(replies) {
  if (!replies.length || replies.includes(null)) return nothing;
  const problem = replies.find((reply) => reply.problem)?.problem;
  if (problem) return html`<p class="note" data-compared>Not compared with the training text: ${problem}</p>`;
  const texts = replies.flatMap((reply) => reply.texts);
  const compared = texts.filter((text) => text.compared_tokens < text.training_tokens).map((text) => text.compared_tokens);
  const bound = compared.length ? ` the first ${whole(Math.max(...compared))} tokens of` : "";
  const shortest = Math.min(...texts.map((text) => text.shortest_tokens));
  const isAny = texts.some((text) => text.passages.length);
  return html`<p class="soft" data-compared>
    Compared with${bound} the training text: passages of at least ${whole(shortest)} tokens that are in it word for word are
    underlined.${isAny ? nothing : " There are none."}
  </p>`;
}
