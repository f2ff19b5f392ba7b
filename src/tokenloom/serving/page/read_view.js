// The view of a text: each token colored by how well a model predicts it, by how two models differ, or by attention.

import { AttentionPanel } from "./attention_panel.js";
import { missingModels, noModel } from "./empty_states.js";
import { Latest } from "./latest.js";
import { modelOptions } from "./model_options.js";
import { comparedByDefault, findModel } from "./models.js";
import { settled } from "./polling.js";
import { details, differenceLegend, figures, heatLegend } from "./read_parts.js";
import { MEASURES } from "./scales.js";
import { TokenCursor } from "./token_cursor.js";
import { blocksOf, comparedSpans, displayed, inspectedSpans } from "./token_text.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

const EXAMPLE = "Every effort moves you, and the model that wrote this sentence had read a great many others before.";
const ALTERNATIVES = 10;
const TABS = { predictions: "Predictions", difference: "Difference", attention: "Attention" };

export class ReadView {
  #app;
  #host;
  #answer = new Latest();
  #attention;
  #cursor;
  #spans = { reply: null, measure: null, blocks: [] };
  #write = settled(async () => {
    const z = await this.#app.text.write(this.#app.text.value);
    if (z !== undefined) this.#app.go({ z }, { replace: true });
  }, 400);

  constructor(app, host) {
    this.#app = app;
    this.#host = host;
    host.className = "view read-view";
    this.#attention = new AttentionPanel(app, host, () => this.#draw());
    this.#cursor = new TokenCursor(app, host, () => this.#draw());
  }

  destroy() {
    this.#answer.clear();
    this.#attention.clear();
  }

  /** Take what the address says, and ask for what is not known yet. */
  async update() {
    this.#draw();
    await this.#app.text.read(this.#app.state.params.get("z"));
    this.#ask();
    this.#draw();
  }

  get #tab() {
    if (this.#app.state.params.get("tab") === "attention") return "attention";
    return this.#other ? "difference" : "predictions";
  }

  get #isAttention() {
    return this.#tab === "attention";
  }

  get #measure() {
    const scale = this.#app.state.params.get("scale");
    return Object.hasOwn(MEASURES, scale) ? scale : "nats";
  }

  /** The model with which the chosen one is compared; null without one. */
  get #other() {
    const id = this.#app.state.params.get("vs");
    return id ? findModel(this.#app.models ?? [], id) : null;
  }

  /** The model with which the chosen one can be compared; null if there is no other one. */
  get #comparable() {
    const { model, models } = this.#app;
    return this.#other ?? (model && comparedByDefault(models, model));
  }

  #ask() {
    if (this.#isAttention) return this.#attention.ask();
    const { model, text, api } = this.#app;
    const other = this.#other;
    if (!model || !text.value) return this.#answer.clear();
    const key = JSON.stringify([model.id, model.name, other?.id, other?.name, text.value]);
    const work = (signal) =>
      other
        ? api.post("/api/compare", { a: other.id, b: model.id, text: text.value }, signal)
        : api.post("/api/inspect", { model: model.id, text: text.value, top: ALTERNATIVES }, signal);
    return this.#answer.ask(key, work, () => this.#draw());
  }

  #draw() {
    if (this.#app.models !== null && !this.#app.models.length) return render(noModel(), this.#host);
    const { reply, isPending } = this.#answer;
    const error = this.#isAttention ? this.#attention.error : this.#answer.error;
    return render(
      html`
        <h1 class="hidden">Read</h1>
        <section class="card">
          <label class="field">
            <span>Text</span>
            <textarea
              rows="4" spellcheck="false" placeholder="Paste a text, to see how well the model predicts it."
              .value=${this.#app.text.value} @input=${(event) => this.#edit(event.target.value)}
            ></textarea>
          </label>
          ${this.#controls()}
          ${this.#app.text.isTooLong ? html`<p class="note">The text is too long to link: the address does not have it.</p>` : nothing}
          ${missingModels(this.#app.missing("m", "vs"))}
          ${error ? html`<p class="note diverged" role="alert">${error.message}</p>` : nothing}
        </section>
        ${this.#isAttention && this.#app.text.value
          ? this.#attention.template()
          : reply && !this.#isAttention
            ? this.#result(reply, isPending)
            : this.#nothingYet(isPending)}
      `,
      this.#host,
    );
  }

  #edit(value) {
    this.#app.text.value = value;
    this.#write();
    this.#app.go({ t: null }, { replace: true }); // the number of a token of the text before
  }

  #nothingYet(isPending) {
    if (isPending) return html`<div class="skeleton block tall" role="status" aria-label="Loading"></div>`;
    if (this.#app.text.value) return nothing;
    return html`<p class="soft">
      No text yet. <button @click=${() => this.#edit(EXAMPLE)}>Use an example</button>
    </p>`;
  }

  #controls() {
    const target = this.#comparable;
    return html`<div class="controls">
      <div class="segments" role="group" aria-label="Show">
        ${Object.entries(TABS).map(
          ([name, label]) =>
            html`<button
              aria-pressed=${name === this.#tab} ?disabled=${name === "difference" && !target} @click=${() => this.#open(name)}
            >${label}</button>`,
        )}
      </div>
      ${this.#tab === "predictions" ? this.#measures() : nothing} ${this.#tab === "difference" ? this.#others() : nothing}
    </div>`;
  }

  /** Show another tab. A token is kept where both have the same ones. */
  #open(tab) {
    if (tab === this.#tab) return;
    const isDifference = [tab, this.#tab].includes("difference");
    this.#app.go({
      tab: tab === "attention" ? tab : null,
      vs: tab === "difference" ? this.#comparable.id : null,
      ...(isDifference ? { t: null } : {}),
    });
  }

  /** By what the predictions are colored. */
  #measures() {
    return html`<div class="segments" role="group" aria-label="Color by">
      <span>color by</span>
      ${Object.entries(MEASURES).map(
        ([name, { label }]) =>
          html`<button aria-pressed=${name === this.#measure} @click=${() => this.#app.go({ scale: name })}>${label}</button>`,
      )}
    </div>`;
  }

  /** The model with which the chosen one is compared. */
  #others() {
    const { models, rows, state } = this.#app;
    return html`<label class="choice">
      compare with
      <select @change=${(event) => this.#app.go({ vs: event.target.value, t: null })}>
        ${modelOptions(models, rows, state.params.get("vs"))}
      </select>
    </label>`;
  }

  #result(reply, isPending) {
    const last = (reply.parts ?? reply.tokens).length; // the first token is number 0, and has no value
    return html`<div class="pair ${isPending ? "pending" : ""}" aria-busy=${isPending}>
      <section class="card" aria-label="Tokens">
        ${figures(reply)}
        ${reply.models ? differenceLegend(reply) : heatLegend(this.#measure)}
        ${this.#cursor.list(this.#tokens(reply, last), last)}
      </section>
      <section class="card details" aria-label="Token" tabindex="0">
        ${details(reply, this.#cursor.shown(last), { measure: this.#measure, isKept: this.#cursor.isKept(last) })}
      </section>
    </div>`;
  }

  /** The spans, which are computed again only when the reply or the measure is another one. */
  #tokens(reply, last) {
    const measure = this.#measure;
    if (this.#spans.reply !== reply || this.#spans.measure !== measure) {
      const spans = reply.models ? comparedSpans(reply) : inspectedSpans(reply, measure);
      const blocks = blocksOf(spans).map(({ start, spans }) => ({ start, template: block(start, spans) }));
      this.#spans = { reply, measure, blocks };
    }
    queueMicrotask(() => this.#mark(this.#cursor.kept(last)));
    return this.#spans.blocks.map(({ template }) => template);
  }

  /** Mark the kept token, and let the Tab key find it. */
  #mark(kept) {
    const tokens = this.#host.querySelector(".tokens");
    if (!tokens) return;
    for (const element of tokens.querySelectorAll("[aria-selected=true], [tabindex='0']")) {
      element.setAttribute("aria-selected", "false");
      element.tabIndex = -1;
    }
    const element = tokens.querySelector(`[data-index="${kept ?? 0}"]`);
    if (!element) return;
    element.tabIndex = 0;
    element.setAttribute("aria-selected", String(kept !== null));
  }
}

function block(start, spans) {
  return html`<div class="block-of-tokens" role="none">${spans.map(
    ({ text, className, label }, index) =>
      html`<span
        class="token ${className}" data-index=${start + index}
        role="option" aria-selected="false" tabindex="-1" aria-label=${label}
      >${displayed(text)}</span>`,
  )}</div>`;
}
