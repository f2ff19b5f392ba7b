// The view of the next token: what the model predicts, what sampling does to it, and a text that grows by choices.

import { branchList, showCurrent } from "./branch_list.js";
import { chosen, moved, packBranches, redoTarget, textAt, undoTarget } from "./branches.js";
import { missingModels, noModel } from "./empty_states.js";
import { Latest } from "./latest.js";
import { LinkedBranches } from "./linked_branches.js";
import { KEYS, bars, barsLegend, sliders, steps } from "./next_parts.js";
import { settled } from "./polling.js";
import { SLIDERS, isPickable, samplingFields } from "./sampling.js";
import { numberParam } from "./state.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

const SHOWN = 20; // tokens
const UNDO = ["backspace", "Control+z"];
const REDO = ["Control+Shift+z", "Control+y"];

export class NextView {
  #app;
  #host;
  #answer = new Latest();
  #branches = new LinkedBranches();
  #pointed = 0;
  #asked = null; // the text that the answer continues
  #seen = null; // the tree that was drawn
  #write = settled(() => this.#link(), 300);
  #onKey = (event) => this.#press(event);

  constructor(app, host) {
    this.#app = app;
    this.#host = host;
    host.className = "view next-view";
    document.addEventListener("keydown", this.#onKey);
  }

  destroy() {
    document.removeEventListener("keydown", this.#onKey);
    this.#answer.clear();
  }

  /** Take what the address says, and ask for what is not known yet. */
  async update() {
    const { text, state } = this.#app;
    await text.read(state.params.get("z"));
    await this.#branches.read(state.params.get("tree"), text.value);
    this.#ask();
    this.#draw();
  }

  get #values() {
    const { params } = this.#app.state;
    return Object.fromEntries(
      SLIDERS.map(({ param, low, high, initial }) => [param, numberParam(params, param, { initial, low, high })]),
    );
  }

  #ask() {
    const { model, text, api } = this.#app;
    if (!model) return this.#answer.clear();
    const body = { model: model.id, text: text.value, top: SHOWN, ...samplingFields(this.#values) };
    const key = JSON.stringify([model.name, body]);
    this.#asked = text.value;
    return this.#answer.ask(key, (signal) => api.post("/api/next-token", body, signal), () => this.#draw());
  }

  #draw() {
    if (this.#app.models !== null && !this.#app.models.length) {
      render(noModel(), this.#host);
      return;
    }
    const { reply, error, isPending } = this.#answer;
    const { tree, isTooLong } = this.#branches;
    const pointed = Math.min(this.#pointed, (reply?.tokens.length ?? 1) - 1);
    render(
      html`
        <h1 class="hidden">Next</h1>
        <section class="card">
          <label class="field">
            <span>Text</span>
            <textarea
              rows="3" spellcheck="false" placeholder="Empty: the start of a new text."
              .value=${this.#app.text.value} @input=${(event) => this.#edit(event.target.value)}
            ></textarea>
          </label>
          <div class="controls">
            <button
              ?disabled=${undoTarget(tree) === null} aria-keyshortcuts="Backspace Control+Z"
              @click=${() => this.#goTo(undoTarget(tree))}
            >Undo</button>
            <button
              ?disabled=${redoTarget(tree) === null} aria-keyshortcuts="Control+Shift+Z Control+Y"
              @click=${() => this.#goTo(redoTarget(tree))}
            >Redo</button>
            <span class="soft">Keys 1 to ${KEYS} add a token, Backspace takes the last one back.</span>
          </div>
          ${missingModels(this.#app.missing("m"))}
          ${error ? html`<p class="note diverged" role="alert">${error.message}</p>` : nothing}
        </section>
        <div class="pair ${isPending ? "pending" : ""}" aria-busy=${isPending}>
          <section class="card" aria-label="Next tokens">
            ${reply
              ? html`${barsLegend(reply)}${bars(reply, {
                  pick: (token) => this.#pick(token),
                  point: (index) => this.#point(index),
                })}`
              : html`<div class="skeleton block tall" role="status" aria-label="Loading"></div>`}
          </section>
          <div class="view">
            ${tree.nodes.length > 1 ? branchList(tree, { go: (node) => this.#goTo(node), isTooLong }) : nothing}
            <section class="card" aria-label="Sampling">
              <h2>Sampling</h2>
              ${sliders(this.#values, (param, value) => this.#set(param, value))}
            </section>
            ${reply?.tokens.length ? steps(reply, pointed) : nothing}
          </div>
        </div>
      `,
      this.#host,
    );
    if (tree !== this.#seen) showCurrent(this.#host);
    this.#seen = tree;
  }

  #edit(value) {
    this.#app.text.value = value;
    this.#branches.begin(value);
    this.#write();
    this.#draw();
  }

  /** Put a text that was typed into the address. One that had branches stays in the history. */
  async #link() {
    if (this.#branches.tree.nodes.length > 1) return; // meanwhile a token was chosen, which is in the address
    const z = await this.#app.text.write(this.#app.text.value);
    if (z !== undefined) this.#app.go({ z, tree: null }, { replace: !this.#app.state.params.has("tree") });
  }

  /** Show the text at which a tree is, and put both into the address. */
  async #show(tree) {
    const { text } = this.#app;
    this.#branches.tree = tree;
    text.value = textAt(tree);
    this.#pointed = 0;
    const packed = await packBranches(tree);
    const z = await text.write(textAt(tree));
    if (z === undefined || tree !== this.#branches.tree) return; // meanwhile another one is shown
    this.#app.go({ z, tree: this.#branches.accept(packed, z?.length ?? 0) });
  }

  #goTo(node) {
    const { tree } = this.#branches;
    if (node !== null && node !== tree.at) this.#show(moved(tree, node));
  }

  #set(param, value) {
    const { initial } = SLIDERS.find((slider) => slider.param === param);
    this.#app.go({ [param]: value === initial ? null : value }, { replace: true });
  }

  #pick(token) {
    const isOld = this.#answer.isPending || this.#asked !== this.#app.text.value;
    if (isOld || !isPickable(token)) return;
    this.#show(chosen(this.#branches.tree, { ...token, logProbability: Number(token.log_probability) }));
  }

  #point(index) {
    if (index === this.#pointed) return;
    this.#pointed = index;
    this.#draw();
  }

  /** Number keys, undo and redo, except where text is typed. */
  #press(event) {
    if (event.altKey || event.target.closest("textarea, select, input:not([type=range])")) return;
    const { tree } = this.#branches;
    const key = `${event.ctrlKey || event.metaKey ? "Control+" : ""}${event.shiftKey ? "Shift+" : ""}${event.key.toLowerCase()}`;
    const tokens = this.#answer.reply?.tokens ?? [];
    if (/^[1-9]$/.test(key) && Number(key) <= tokens.length) this.#pick(tokens[Number(key) - 1]);
    else if (UNDO.includes(key)) this.#goTo(undoTarget(tree));
    else if (REDO.includes(key)) this.#goTo(redoTarget(tree));
    else return;
    event.preventDefault();
  }
}
