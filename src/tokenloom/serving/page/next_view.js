// The view of the next token: what the model predicts, what sampling does to it, and a text that grows by choices.

import { missingModels, noModel } from "./empty_states.js";
import { Latest } from "./latest.js";
import { KEYS, bars, barsLegend, sliders, steps } from "./next_parts.js";
import { settled } from "./polling.js";
import { SLIDERS, isPickable, samplingFields } from "./sampling.js";
import { numberParam } from "./state.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

const SHOWN = 20; // tokens

export class NextView {
  #app;
  #host;
  #answer = new Latest();
  #picked = []; // texts of the tokens that were added since the text was edited
  #pointed = 0;
  #asked = null; // the text that the answer continues
  #write = settled(() => this.#link(this.#app.text.value, { replace: true }), 300);
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
    await this.#app.text.read(this.#app.state.params.get("z"));
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
            <button ?disabled=${!this.#picked.length} aria-keyshortcuts="Backspace" @click=${() => this.#undo()}>Undo</button>
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
          <section class="card" aria-label="Sampling">
            <h2>Sampling</h2>
            ${sliders(this.#values, (param, value) => this.#set(param, value))}
            ${reply?.tokens.length ? steps(reply.tokens[Math.min(this.#pointed, reply.tokens.length - 1)], reply.entropy) : nothing}
          </section>
        </div>
      `,
      this.#host,
    );
  }

  #edit(value) {
    this.#app.text.value = value;
    this.#picked = [];
    this.#write();
  }

  async #link(value, options) {
    const z = await this.#app.text.write(value);
    this.#app.go({ z }, options);
  }

  #set(param, value) {
    const { initial } = SLIDERS.find((slider) => slider.param === param);
    this.#app.go({ [param]: value === initial ? null : value }, { replace: true });
  }

  #pick(token) {
    const isOld = this.#answer.isPending || this.#asked !== this.#app.text.value;
    if (isOld || !isPickable(token)) return;
    this.#picked.push(token.text);
    this.#pointed = 0;
    this.#link(this.#app.text.value + token.text);
  }

  #undo() {
    const last = this.#picked.pop();
    const { value } = this.#app.text;
    if (last !== undefined && value.endsWith(last)) this.#link(value.slice(0, value.length - last.length));
  }

  #point(index) {
    if (index === this.#pointed) return;
    this.#pointed = index;
    this.#draw();
  }

  /** Number keys and Backspace, except where text is typed. */
  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, select, input:not([type=range])")) return;
    const tokens = this.#answer.reply?.tokens ?? [];
    if (/^[1-9]$/.test(event.key) && Number(event.key) <= tokens.length) this.#pick(tokens[Number(event.key) - 1]);
    else if (event.key === "Backspace") this.#undo();
    else return;
    event.preventDefault();
  }
}
