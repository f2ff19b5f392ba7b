// The parts of the attention tab: the text, the heads to choose from, and where a token looks.

import { averages, largestWeights, weightLevel } from "./attention.js";
import { counted, fixed, percent, visibleToken, whole } from "./format.js";
import { HEAT_LEVELS } from "./scales.js";
import { displayed } from "./token_text.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const SHOWN = 8; // tokens that are listed with their weights

/** The tokens of the text, each with the weight that the token `query` gives it. */
export function attentionTokens(reply, query) {
  const row = reply.weights[query];
  return reply.tokens.map(({ text }, index) => {
    const isLater = index > query;
    const name = isLater ? "later" : `heat-${weightLevel(row[index])}`;
    const label = `${text}: ${isLater ? "comes later" : percent(row[index])}${index === query ? ", this token looks" : ""}`;
    return html`<span
      class="token ${name}" data-index=${index}
      role="option" aria-selected=${index === query} tabindex=${index === query ? 0 : -1} aria-label=${label}
    >${displayed(text)}</span>`;
  });
}

/** What the colors mean, on the scale of `weightLevel`. */
export function attentionLegend() {
  const levels = Array.from({ length: HEAT_LEVELS + 1 }, (_, level) => html`<i class="token heat-${level}"></i>`);
  return html`<p class="legend">
    0 % <span aria-hidden="true">${levels}</span> 100 %: how much the outlined token attends to each token, on a square-root scale.
    It does not see later ones.
  </p>`;
}

/** What part of a long text is shown. */
export function truncationNote(reply) {
  const shown = reply.tokens.length;
  if (reply.text_tokens <= shown) return nothing;
  return html`<p class="note" data-note="truncated">
    The text has ${counted(reply.text_tokens, "token")}: attention is shown for the first ${whole(shown)}.
  </p>`;
}

/** Where a token looks: its largest weights. */
export function queryDetails(reply, query, isKept) {
  const row = reply.weights[query];
  return html`<h2><span class="token">${visibleToken(reply.tokens[query].text)}</span>${isKept ? html` <small>kept</small>` : nothing}</h2>
    <p class="soft">token ${whole(query + 1)} of ${whole(reply.tokens.length)} attends to</p>
    <ol class="bars attended">
      ${largestWeights(row, SHOWN).map(
        ({ index, weight }) => html`<li class=${index === query ? "chosen" : ""}>
          <span class="token">${visibleToken(reply.tokens[index].text)}</span>
          <span class="place">${placeOf(index, query)}</span>
          <span class="track"><span class="fill heat" .style=${`width:${100 * weight}%`}></span></span>
          <span class="value" data-weight=${index}>${percent(weight)}</span>
        </li>`,
      )}
    </ol>
    <p class="soft hint">Point to a token, or press ← and →; click, or press Enter, to keep it.</p>`;
}

function placeOf(index, query) {
  if (index === query) return "itself";
  return index === query - 1 ? "1 before" : `${whole(query - index)} before`;
}

/** The heads of all layers as small maps, of which one is chosen. */
export function headGrid(overview, chosen, { choose, move }) {
  return html`<div
    class="heads" role="grid" aria-label="Heads, by layer" @keydown=${move}
    .style=${`--heads:${overview.heads}`}
  >
    <div class="layer" role="row">
      <span role="columnheader"><span class="hidden">Layer</span></span>
      ${overview.maps[0].map((_, head) => html`<span class="soft" role="columnheader">${head}</span>`)}
    </div>
    ${overview.maps.map(
      (layer, number) => html`<div class="layer" role="row" aria-label="Layer ${number}">
        <span class="soft" role="rowheader">${number}</span>
        ${layer.map((_, head) => {
          const isChosen = number === chosen.layer && head === chosen.head;
          return html`<button
            class="head" role="gridcell" aria-selected=${isChosen} tabindex=${isChosen ? 0 : -1}
            aria-label="Layer ${number}, head ${head}" title="Layer ${number}, head ${head}"
            data-head="${number}.${head}" @click=${() => choose({ layer: number, head })}
          ><canvas class="map" aria-hidden="true" data-map="${number}.${head}"></canvas></button>`;
        })}
      </div>`,
    )}
  </div>`;
}

/** The map of the chosen head, with the row of a token marked, and what it looks at on average. */
export function headMap(reply, query, { point, leave, keep }) {
  const mean = averages(reply.weights);
  const size = 100 / reply.tokens.length;
  return html`<div class="map-and-means">
    <div
      class="map-frame" @pointermove=${point} @pointerleave=${leave} @click=${keep}
    >
      <canvas
        class="map" data-map="head" role="img"
        aria-label="Map of layer ${reply.layer}, head ${reply.head}: a row for each token, in which the tokens that it attends to are marked"
      ></canvas>
      <span class="map-row" .style=${`top:${size * query}%;height:${size}%`}></span>
    </div>
    ${mean
      ? html`<dl class="readout">
          <div class="name"><dt>On average, a token attends</dt></div>
          <div><dt>to itself</dt><dd data-mean="itself">${percent(mean.itself)}</dd></div>
          <div><dt>to the one before</dt><dd data-mean="previous">${percent(mean.previous)}</dd></div>
          <div><dt>to the first</dt><dd data-mean="first">${percent(mean.first)}</dd></div>
          <div><dt>mean distance</dt><dd data-mean="distance">${fixed(mean.distance, 1)} tokens</dd></div>
        </dl>`
      : nothing}
  </div>`;
}
