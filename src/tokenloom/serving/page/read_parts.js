// The parts of the Read view besides the tokens: figures, legend and details of a token.

import { fixed, percent, visibleToken, whole } from "./format.js";
import { HEAT_LEVELS, MEASURES } from "./scales.js";
import { signed, valueText } from "./token_text.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const BETTER = ["B predicts this better.", "Both predict this alike.", "A predicts this better."]; // by the sign of B − A

/** The figures of the text under one model, or under both. */
export function figures(reply) {
  const models = reply.models ?? [reply];
  return html`<div class="scroll" role="region" aria-label="Figures" tabindex="0">
    <table class="figures">
      <thead>
        <tr>
          <th scope="col">Model</th><th scope="col" class="number">Loss</th><th scope="col" class="number">Perplexity</th>
          <th scope="col" class="number">Bits per byte</th><th scope="col" class="number more">Tokens</th>
        </tr>
      </thead>
      <tbody>
        ${models.map(
          (model, index) => html`<tr>
            <th scope="row">${models.length > 1 ? `${"AB"[index]}: ` : nothing}${model.model}</th>
            <td class="number" data-figure="loss">${fixed(model.loss)}</td><td class="number">${fixed(model.perplexity, 2)}</td>
            <td class="number">${fixed(model.bits_per_byte)}</td><td class="number more">${whole(model.scored_tokens)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** What the colors of an inspection mean. */
export function heatLegend(name) {
  const { ends, explanation } = MEASURES[name];
  const levels = Array.from({ length: HEAT_LEVELS + 1 }, (_, level) => html`<i class="token heat-${level}"></i>`);
  return html`<p class="legend">${ends[0]} <span aria-hidden="true">${levels}</span> ${ends[1]}: ${explanation}</p>`;
}

/** What the colors of a comparison mean. */
export function differenceLegend(reply) {
  const classes = [5, 4, 3, 2, 1].map((level) => `better-${level}`).concat("", [1, 2, 3, 4, 5].map((level) => `worse-${level}`));
  const unit = reply.unit === "word" ? ", word by word, because the tokens of the models differ" : "";
  return html`<p class="legend">
    B better by 4 nats <span aria-hidden="true">${classes.map((name) => html`<i class="token ${name}"></i>`)}</span> worse by 4 nats${unit}
  </p>`;
}

/** What is known of a token: number 0 is the first one, which nothing predicts. */
export function details(reply, index, { measure, isKept }) {
  if (index === null) {
    return html`<p class="soft">
      Choose a token for its prediction: by a click, or with Enter. ← and → go through the text, and Escape ends the choice.
    </p>`;
  }
  return reply.models ? comparedDetails(reply, index, isKept) : inspectedDetails(reply, index, measure, isKept);
}

function inspectedDetails(reply, index, measure, isKept) {
  const token = index === 0 ? reply.first : reply.tokens[index - 1];
  if (!token) return nothing;
  const heading = html`${headingOf(token.text, isKept)}
    <p class="soft">token ${whole(index + 1)}, id ${token.id}, bytes ${token.bytes}</p>`;
  if (index === 0) return html`${heading}<p>The first token has no context and is not predicted.</p>`;
  return html`${heading}
    <dl class="readout">
      ${Object.entries(MEASURES).map(
        ([name, { label, value }]) =>
          html`<div class=${name === measure ? "chosen" : ""}>
            <dt>${label}</dt><dd data-measure=${name}>${valueText(value(token), name)}</dd>
          </div>`,
      )}
      <div><dt>probability</dt><dd>${percent(token.probability)}</dd></div>
    </dl>
    <h3>Predicted</h3>
    <ol class="bars">
      ${token.top.map(
        (other) => html`<li class=${other.id === token.id ? "chosen" : ""}>
          <span class="token">${visibleToken(other.text)}</span>
          <span class="track"><span class="fill" .style=${`width:${100 * other.probability}%`}></span></span>
          <span class="value">${percent(other.probability)}</span>
        </li>`,
      )}
    </ol>`;
}

function headingOf(text, isKept) {
  return html`<h2><span class="token">${visibleToken(text)}</span>${isKept ? html` <small>kept</small>` : nothing}</h2>`;
}

function comparedDetails(reply, index, isKept) {
  const part = index === 0 ? null : reply.parts[index - 1];
  const text = part ? part.text : reply.before;
  const heading = headingOf(text, isKept);
  if (!part) return html`${heading}<p>At least one of the models has no context for this and does not predict it.</p>`;
  const [a, b] = part.nats.map(Number);
  return html`${heading}
    <dl class="readout">
      <div><dt>loss of A</dt><dd>${fixed(a, 2)} nats</dd></div>
      <div><dt>loss of B</dt><dd>${fixed(b, 2)} nats</dd></div>
      <div class="chosen"><dt>difference</dt><dd data-measure="difference">${signed(Number(part.difference))} nats</dd></div>
    </dl>
    <p class="soft">${BETTER[Math.sign(Number(part.difference)) + 1] ?? ""}</p>`;
}
