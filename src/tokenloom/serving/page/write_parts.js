// The parts of the Write view: samples of tokens, and the alternatives of one.

import { passageAt } from "./copied.js";
import { copiedNote, sourceText } from "./copied_parts.js";
import { counted, percent, visibleToken, whole } from "./format.js";
import { isPickable } from "./sampling.js";
import { heatLevel } from "./scales.js";
import { displayed } from "./token_text.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";
import { curlLine, pythonLines, tokenTexts } from "./written.js";

const ENDS = { stop: "Ended by itself.", length: "Ended at the length that was asked for." };

/**
 * A continuation, token by token; `opened` is the number of the token whose alternatives are shown, or null.
 * `copied` has the passages that were found, or null, and the number of characters that were compared before it.
 */
export function sampleCard(sample, { number, opened, isWriting, copied, open, keep, branch }) {
  const texts = tokenTexts(sample);
  const tokenOf = (token, index) => {
    const start = copied.from + token.offset;
    const passage = passageAt(copied.found?.passages ?? [], start, start + [...texts[index]].length);
    return html`<span
      class="token heat-${heatLevel(-token.logprob)} ${passage ? "copied" : ""}" role="button" tabindex="0"
      aria-expanded=${index === opened} title=${passage ? `Copied from ${sourceText(passage)}` : nothing}
      aria-label="${texts[index] || "end of text"}: ${percent(Math.exp(token.logprob))}${passage ? ", copied" : ""}"
      @click=${() => open(index)} @keydown=${(event) => press(event, () => open(index))}
    >${displayed(texts[index]) || "∎"}</span>`;
  };
  return html`<section class="card written" aria-label="Continuation ${number}">
    <div class="tokens">${sample.tokens.map(tokenOf)}</div>
    ${opened !== null && sample.tokens[opened] ? alternatives(sample.tokens[opened], isWriting, (other) => branch(opened, other)) : nothing}
    ${copiedNote(copied.found, copied.from, [...sample.text].length)}
    <div class="controls">
      <button ?disabled=${isWriting || !sample.text} @click=${keep}>Keep</button>
      <span class="soft">${isWriting ? "Writing…" : (ENDS[sample.finish] ?? "Stopped.")} The stronger its color, the less likely a token was. Choose one for its alternatives.</span>
    </div>
  </section>`;
}

/** What a button does when it is pressed by a key. */
function press(event, act) {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault(); // the space key would scroll
  act();
}

function alternatives(token, isWriting, branch) {
  return html`<ol class="bars" aria-label="Alternatives">
    ${token.top.map(
      (other) => html`<li class=${other.id === token.id ? "chosen" : ""}>
        <button class="token" ?disabled=${isWriting || !isPickable(other)} @click=${() => branch(other)}
          title="Continue with this token instead">${visibleToken(other.text)}</button>
        <span class="track"><span class="fill" .style=${`width:${100 * other.probability}%`}></span></span>
        <span class="value">${percent(other.probability)}</span>
      </li>`,
    )}
  </ol>`;
}

/** What part of a long prompt the model gets, from `fitted`; nothing if that is all, or not known. */
export function truncationNote(prompt) {
  if (!prompt || prompt.ids.length === prompt.total) return nothing;
  const { ids, total, maxTokens, context } = prompt;
  return html`<p class="note stale" data-note="truncated">
    The text has ${counted(total, "token")}, and the model gets the last ${ids.length === 1 ? "one" : whole(ids.length)}:
    its context is ${whole(context)}, and ${maxTokens === 1 ? "one is" : `${whole(maxTokens)} are`} to be written.
  </p>`;
}

/** The request as commands. */
export function commands(origin, body, hasKey) {
  return html`<details class="card">
    <summary>The same from a program</summary>
    <pre>${curlLine(origin, body, hasKey)}</pre>
    <pre>${pythonLines(origin, body, hasKey)}</pre>
  </details>`;
}
