// The view of a text: each token colored by how well a model predicts it, by how two models differ, or by attention.

import { AttentionPanel } from "./attention_panel.js";
import { missingModels, noModel } from "./empty_states.js";
import { Latest } from "./latest.js";
import { findModel, modelGroups } from "./models.js";
import { settled } from "./polling.js";
import { details, differenceLegend, figures, heatLegend } from "./read_parts.js";
import { MEASURES } from "./scales.js";
import { blocksOf, comparedSpans, displayed, inspectedSpans } from "./token_text.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

const EXAMPLE = "Every effort moves you, and the model that wrote this sentence had read a great many others before.";
const ALTERNATIVES = 10;
const TABS = { predictions: "Predictions", attention: "Attention" };

export class ReadView {
  #app;
  #host;
  #answer = new Latest();
  #attention;
  #pointed = null;
  #locked = null;
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
  }

  destroy() {
    this.#answer.clear();
    this.#attention.clear();
  }

  /** Take what the address says, and ask for what is not known yet. */
  async update() {
    const { params } = this.#app.state;
    const t = params.get("t");
    this.#locked = t !== null && /^\d+$/.test(t) ? Number(t) : null;
    this.#draw();
    await this.#app.text.read(params.get("z"));
    this.#ask();
    this.#draw();
  }

  get #isAttention() {
    return this.#app.state.params.get("tab") === "attention";
  }

  get #measure() {
    const scale = this.#app.state.params.get("scale");
    return Object.hasOwn(MEASURES, scale) ? scale : "nats";
  }

  get #other() {
    const id = this.#app.state.params.get("vs");
    return id ? findModel(this.#app.models ?? [], id) : null;
  }

  #ask() {
    if (this.#isAttention) return this.#attention.ask();
    const { model, text, api } = this.#app;
    const other = this.#other;
    if (!model || !text.value) return this.#answer.clear();
    const key = JSON.stringify([model.id, model.name, other?.id, other?.name, text.value]);
    const work = (signal) =>
      other
        ? api.post("/api/compare", { a: model.id, b: other.id, text: text.value }, signal)
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
    return html`<div class="controls">
      <div class="segments" role="group" aria-label="Show">
        ${Object.entries(TABS).map(
          ([name, label]) =>
            html`<button
              aria-pressed=${(name === "attention") === this.#isAttention}
              @click=${() => this.#app.go({ tab: name === "attention" ? name : null })}
            >${label}</button>`,
        )}
      </div>
      ${this.#isAttention ? nothing : this.#choices()}
    </div>`;
  }

  /** By what the predictions are colored, and with what they are compared. */
  #choices() {
    const { params } = this.#app.state;
    const other = this.#other;
    return html`
      ${other
        ? nothing
        : html`<div class="segments" role="group" aria-label="Color by">
            ${Object.entries(MEASURES).map(
              ([name, { label }]) =>
                html`<button aria-pressed=${name === this.#measure} @click=${() => this.#app.go({ scale: name })}>${label}</button>`,
            )}
          </div>`}
      <label>
        compare with
        <select @change=${(event) => this.#app.go({ vs: event.target.value || null, t: null })}>
          <option value="" .selected=${other === null}>nothing</option>
          ${modelGroups(this.#app.models ?? [], this.#app.rows ?? []).map(
            (group) => html`<optgroup label=${group.label}>
              ${group.options.map(
                (option) => html`<option value=${option.id} .selected=${option.id === params.get("vs")}>${option.label}</option>`,
              )}
            </optgroup>`,
          )}
        </select>
      </label>
    `;
  }

  #result(reply, isPending) {
    const shown = this.#pointed ?? this.#locked;
    return html`<div class="pair ${isPending ? "pending" : ""}" aria-busy=${isPending}>
      <section class="card" aria-label="Tokens">
        ${figures(reply)}
        ${reply.models ? differenceLegend(reply) : heatLegend(this.#measure)}
        <div
          class="tokens" role="listbox" aria-label="Tokens"
          @pointerover=${(event) => this.#point(indexOf(event.target))} @pointerleave=${() => this.#point(null)}
          @click=${(event) => this.#lock(indexOf(event.target))} @keydown=${(event) => this.#move(event)}
        >${this.#tokens(reply)}</div>
      </section>
      <section class="card details" aria-label="Token" tabindex="0">
        ${details(reply, shown, { measure: this.#measure, isLocked: shown !== null && shown === this.#locked })}
      </section>
    </div>`;
  }

  /** The spans, which are computed again only when the reply or the measure is another one. */
  #tokens(reply) {
    const measure = this.#measure;
    if (this.#spans.reply !== reply || this.#spans.measure !== measure) {
      const spans = reply.models ? comparedSpans(reply) : inspectedSpans(reply, measure);
      const blocks = blocksOf(spans).map(({ start, spans }) => ({ start, template: block(start, spans) }));
      this.#spans = { reply, measure, blocks, count: spans.length };
    }
    queueMicrotask(() => this.#mark());
    return this.#spans.blocks.map(({ template }) => template);
  }

  /** Mark the kept token, and let the Tab key find it. */
  #mark() {
    const tokens = this.#host.querySelector(".tokens");
    if (!tokens) return;
    for (const element of tokens.querySelectorAll("[aria-selected=true], [tabindex='0']")) {
      element.setAttribute("aria-selected", "false");
      element.tabIndex = -1;
    }
    const element = tokens.querySelector(`[data-index="${this.#locked ?? 0}"]`);
    if (!element) return;
    element.tabIndex = 0;
    element.setAttribute("aria-selected", String(this.#locked !== null));
  }

  #point(index) {
    if (index === this.#pointed) return;
    this.#pointed = index;
    this.#draw();
  }

  #lock(index) {
    if (index === null) return;
    this.#pointed = null;
    this.#app.go({ t: index === this.#locked ? null : index }, { replace: true });
  }

  #move(event) {
    const index = indexOf(event.target);
    if (index === null) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#lock(index);
    } else if (event.key === "Escape") {
      this.#app.go({ t: null }, { replace: true });
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      const next = Math.min(this.#spans.count - 1, Math.max(0, index + (event.key === "ArrowLeft" ? -1 : 1)));
      this.#app.go({ t: next }, { replace: true });
      this.#mark();
      this.#host.querySelector(`.tokens [data-index="${next}"]`)?.focus();
    }
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

function indexOf(element) {
  const token = element.closest("[data-index]");
  return token ? Number(token.dataset.index) : null;
}
