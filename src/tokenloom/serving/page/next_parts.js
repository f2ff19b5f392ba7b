// The parts of the Next view: parameters, steps of the computation, and bars.

import { fixed, percent, visibleToken, whole } from "./format.js";
import { SLIDERS, isPickable } from "./sampling.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const SAMPLERS = { temperature: "temperature 0", top_k: "top-k", top_p: "top-p", min_p: "min-p" };
export const KEYS = 9; // tokens that a number key picks

/** The sliders. */
export function sliders(values, set) {
  return html`<div class="sliders">
    ${SLIDERS.map(
      ({ param, label, low, high, step, off }) => html`<label>
        <span>${label}</span>
        <input
          type="range" min=${low} max=${high} step=${step} .value=${String(values[param])}
          aria-valuetext=${values[param] === off ? "off" : values[param]}
          @input=${(event) => set(param, Number(event.target.value))}
        />
        <output>${values[param] === off ? "off" : values[param]}</output>
      </label>`,
    )}
  </div>`;
}

/** The way from logits to perplexity for one of the tokens, as in section 5.1.2 of the book. */
export function steps(reply, index) {
  const token = reply.tokens[index];
  const [likeliest] = reply.tokens;
  const loss = -Number(token.log_probability);
  const total = likeliest.logit - Number(likeliest.log_probability); // log Σ exp(logit)
  const isLikeliest = token.logit === likeliest.logit;
  const rows = [
    ["logit", "output of the model", fixed(token.logit)],
    ["softmax", `exp(${fixed(token.logit)} − ${fixed(total)})`, percent(token.probability)],
    ["argmax", isLikeliest ? "no logit is larger" : html`rank ${whole(index + 1)}, after ${tokenOf(likeliest)}`, isLikeliest ? "yes" : "no"],
    ["log-probability", "log of the probability", `${fixed(token.log_probability)} nats`],
    ["cross-entropy", "its negative, if the token comes next", `${fixed(loss)} nats`],
    ["perplexity", `exp(${fixed(loss)})`, fixed(Math.exp(loss), 2)],
  ];
  return html`<section class="card" aria-label="From logits to perplexity">
    <h2>From logits to perplexity: ${tokenOf(token)}</h2>
    <ol class="steps">
      ${rows.map(
        ([name, how, value]) => html`<li data-step=${name}>
          <span>${name}</span><span class="soft">${how}</span><span class="value">${value}</span>
        </li>`,
      )}
    </ol>
    <p class="soft">Before the sampling parameters. Entropy of all tokens: ${fixed(reply.entropy)} nats.</p>
  </section>`;
}

function tokenOf(token) {
  return html`<span class="token">${visibleToken(token.text)}</span>`;
}

/** The most likely tokens: outlined before the sampling parameters, filled after them. */
export function bars(reply, { pick, point }) {
  const largest = Math.max(...reply.tokens.flatMap((token) => [token.probability, token.sampled_probability]), 1e-9);
  const width = (probability) => `width:${((100 * probability) / largest).toFixed(2)}%`;
  return html`<ol class="bars next">
    ${reply.tokens.map((token, index) => {
      const key = index < KEYS ? String(index + 1) : "";
      const cut = SAMPLERS[token.excluded_by];
      return html`<li class=${cut ? "cut" : ""} @pointerenter=${() => point(index)}>
        <kbd>${key}</kbd>
        <button class="token" ?disabled=${!isPickable(token)} aria-keyshortcuts=${key || nothing}
          @click=${() => pick(token)} @focus=${() => point(index)}
          title=${isPickable(token) ? `Add it to the text (id ${token.id})` : "A part of a character cannot be added alone."}
        >${visibleToken(token.text)}</button>
        <span class="track">
          <span class="fill" .style=${width(token.sampled_probability)}></span>
          <span class="outline" .style=${width(token.probability)}></span>
        </span>
        <span class="value" data-before title="Before the sampling parameters">${percent(token.probability)}</span>
        <span class="value" data-after title="After the sampling parameters">${cut ? `cut by ${cut}` : percent(token.sampled_probability)}</span>
      </li>`;
    })}
  </ol>`;
}

/** What the bars mean. */
export function barsLegend(reply) {
  return html`<p class="legend">
    <span class="sample-outline"></span> before the parameters <span class="sample-fill"></span> after them;
    ${whole(reply.choices)} of the tokens can be chosen
  </p>`;
}
