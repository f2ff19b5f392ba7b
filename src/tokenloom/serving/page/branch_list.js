// The tree of the Next view as rows of tokens, between which one goes back and forth.

import { childrenOf, pathTo, redoTarget, rowsOf } from "./branches.js";
import { counted, fixed, percent, visibleToken } from "./format.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const SHOWN_OF_TEXT = 24; // characters
const MARGIN = 8; // px

/** The tree; `go` shows the text of a node. */
export function branchList(tree, { go, isTooLong }) {
  const path = pathTo(tree, tree.at);
  const row = ({ nodes, branches }) => html`<li>
    <div class="chosen-tokens">${nodes.map((node) => nodeButton(tree, node, path, go))}</div>
    ${branches.length ? html`<ul>${branches.map(row)}</ul>` : nothing}
  </li>`;
  return html`<section class="card branches-card" aria-label="Branches">
    <h2>Branches</h2>
    <ul class="branches" aria-label="Tokens that were chosen" @keydown=${(event) => move(event, tree)}>${row(rowsOf(tree))}</ul>
    <p class="soft" data-path>${pathText(tree, path)}</p>
    ${isTooLong ? html`<p class="note">There are too many branches for a link: the address has the text only.</p>` : nothing}
  </section>`;
}

/** Scroll the tree, and not the page, so that the node is seen at which it is. */
export function showCurrent(host) {
  const list = host.querySelector(".branches");
  const current = list?.querySelector("[aria-current]");
  if (!current) return;
  const [outer, inner] = [list.getBoundingClientRect(), current.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top + MARGIN;
  if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom + MARGIN;
}

function nodeButton(tree, node, path, go) {
  const { text, logProbability } = tree.nodes[node];
  const isFirst = node === 0;
  const shown = isFirst ? startText(text) : visibleToken(text);
  return html`<button
    data-node=${node} class=${path.includes(node) ? "passed" : ""} aria-current=${node === tree.at ? "step" : nothing}
    tabindex=${node === tree.at ? 0 : -1} @click=${() => go(node)}
    title=${isFirst ? "The text that was typed" : "The text up to this token, and its probability when it was chosen"}
  ><span class=${isFirst && !text ? "" : "token"}>${shown}</span>${isFirst ? nothing : html` <small>${percent(Math.exp(logProbability))}</small>`}</button>`;
}

/** The end of the text that was typed. */
function startText(text) {
  if (!text) return "start of a text";
  const characters = [...text];
  const end = characters.slice(-SHOWN_OF_TEXT).join("");
  return `${characters.length > SHOWN_OF_TEXT ? "…" : ""}${visibleToken(end)}`;
}

/** How likely the chosen tokens are together. */
function pathText(tree, path) {
  const count = path.length - 1;
  if (count === 0) return "The text as it was typed.";
  const total = path.reduce((sum, node) => sum + tree.nodes[node].logProbability, 0);
  return `${counted(count, "token")} after the text: probability ${percent(Math.exp(total))}, perplexity ${fixed(Math.exp(-total / count), 2)}.`;
}

/** Arrow keys move the focus: along a branch, and between the tokens of a fork. */
function move(event, tree) {
  const focused = event.target.closest("[data-node]");
  if (!focused) return;
  const node = Number(focused.dataset.node);
  const { parent } = tree.nodes[node];
  const siblings = parent === null ? [] : childrenOf(tree, parent);
  const place = siblings.indexOf(node);
  const targets = {
    ArrowLeft: parent,
    ArrowRight: redoTarget({ ...tree, at: node }),
    ArrowUp: siblings[place - 1] ?? null,
    ArrowDown: siblings[place + 1] ?? null,
    Home: 0,
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  const target = targets[event.key];
  if (target !== null) event.currentTarget.querySelector(`[data-node="${target}"]`).focus();
}
