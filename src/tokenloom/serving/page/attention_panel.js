// The attention tab of the Read view: one head of one layer at a time, and the tokens that each token attends to.

import { cellAt, headOf, movedHead } from "./attention.js";
import { PaintedMaps } from "./attention_map.js";
import { attentionLegend, attentionTokens, headGrid, headMap, queryDetails, truncationNote } from "./attention_parts.js";
import { Latest } from "./latest.js";
import { numberParam } from "./state.js";
import { TokenCursor } from "./token_cursor.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

export class AttentionPanel {
  #app;
  #host;
  #draw;
  #heads = new Latest(); // small maps of all heads
  #head = new Latest(); // the weights of one
  #maps = new PaintedMaps();
  #rows = { overview: null, maps: [] };
  #cursor;

  /** `draw` is called when there is something new to draw in the element `host`. */
  constructor(app, host, draw) {
    this.#app = app;
    this.#host = host;
    this.#draw = draw;
    this.#cursor = new TokenCursor(app, host, draw);
  }

  get error() {
    return this.#heads.error ?? this.#head.error;
  }

  clear() {
    this.#heads.clear();
    this.#head.clear();
  }

  /** Ask for the heads of the text, and then for the weights of the one that the address names. */
  ask() {
    const { model, text, api } = this.#app;
    if (!model || !text.value) return this.clear();
    const body = { model: model.id, text: text.value, truncate: true };
    const key = JSON.stringify([model.id, model.name, text.value]);
    const work = (signal) => api.post("/api/attention/heads", body, signal);
    this.#heads.ask(key, work, () => {
      this.#askHead();
      this.#draw();
    });
    this.#askHead();
  }

  #askHead() {
    const overview = this.#heads.reply;
    if (!overview || this.#heads.isPending || this.#heads.error) return;
    const { model, text, api } = this.#app;
    const body = { model: model.id, text: text.value, truncate: true, ...this.#chosen };
    const key = JSON.stringify([model.name, body]);
    this.#head.ask(key, (signal) => api.post("/api/attention", body, signal), () => this.#draw());
  }

  /** The layer and the head that the address names, as far as the model has them. */
  get #chosen() {
    const { params } = this.#app.state;
    const [layer, head] = ["layer", "head"].map((name) => numberParam(params, name, { initial: 0, low: 0 }));
    return headOf(this.#heads.reply, layer, head);
  }

  /** What is drawn. */
  template() {
    const [overview, reply] = [this.#heads.reply, this.#head.reply];
    if (!overview || !reply) return this.error ? nothing : html`<div class="skeleton block tall" role="status" aria-label="Loading"></div>`;
    queueMicrotask(() => this.#paint());
    const [cursor, last] = [this.#cursor, reply.tokens.length - 1];
    const query = cursor.shown(last) ?? last; // the query token
    const isPending = this.#heads.isPending || this.#head.isPending;
    return html`<div class="pair attention ${isPending ? "pending" : ""}" aria-busy=${isPending}>
      <div class="column">
        <section class="card text" aria-label="Tokens">
          <h2>Layer ${reply.layer}, head ${reply.head}<small> of ${reply.model}</small></h2>
          ${truncationNote(reply)}
          ${attentionLegend()}
          ${cursor.list(attentionTokens(reply, query), last)}
        </section>
        <section class="card head-map" aria-label="Map">
          <h2>Map<small> a row for each token that attends, a column for each that it attends to</small></h2>
          ${headMap(reply, query, {
            point: (event) => cursor.point(rowAt(event, reply.tokens.length)),
            leave: () => cursor.point(null),
            keep: (event) => cursor.keep(rowAt(event, reply.tokens.length)),
          })}
        </section>
      </div>
      <div class="column">
        <section class="card head-choice" aria-label="Heads">
          <h2>Heads<small> by layer, counted from 0</small></h2>
          ${headGrid(overview, this.#chosen, { choose: (head) => this.#choose(head), move: (event) => this.#moveHead(event) })}
        </section>
        <section class="card details" aria-label="Token" tabindex="0">
          ${queryDetails(reply, query, cursor.isKept(last))}
        </section>
      </div>
    </div>`;
  }

  /** Draw the maps that are new; those of the heads are sent in percent. */
  #paint() {
    const overview = this.#heads.reply;
    if (this.#rows.overview !== overview) {
      const shares = (map) => map.map((row) => row.map((percent) => percent / 100));
      this.#rows = { overview, maps: overview?.maps.map((layer) => layer.map(shares)) ?? [] };
    }
    this.#maps.paint(this.#host, (canvas) => {
      const [layer, head] = canvas.dataset.map.split(".").map(Number);
      return canvas.dataset.map === "head" ? this.#head.reply?.weights : this.#rows.maps[layer]?.[head];
    });
  }

  #choose(head, options) {
    this.#app.go(head, options);
  }

  #moveHead(event) {
    const moved = movedHead(this.#heads.reply, this.#chosen, event.key);
    if (moved === null) return;
    event.preventDefault();
    this.#choose(moved, { replace: true });
    this.#host.querySelector(`[data-head="${moved.layer}.${moved.head}"]`)?.focus();
  }
}

function rowAt(event, rows) {
  const box = event.currentTarget.getBoundingClientRect();
  return cellAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, rows).row;
}
