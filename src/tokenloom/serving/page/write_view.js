// The view in which a model continues a text: one text that is edited, and continuations that are kept or not.

import { CopiedPassages } from "./copied.js";
import { comparedNote } from "./copied_parts.js";
import { missingModels, noModel } from "./empty_states.js";
import { readEvents } from "./events.js";
import { Latest } from "./latest.js";
import { sliders } from "./next_parts.js";
import { oncePerFrame, settled } from "./polling.js";
import { SLIDERS, samplingFields } from "./sampling.js";
import { numberParam } from "./state.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";
import { commands, sampleCard, truncationNote } from "./write_parts.js";
import { branched, emptySample, extended, fitted } from "./written.js";

const ALTERNATIVES = 10;
const COUNTS = [1, 2, 4]; // continuations at a time
const LENGTH = { initial: 64, low: 1, high: 512 };
const COMPARED = 500; // characters before a continuation that are compared with the training text too

export class WriteView {
  #app;
  #host;
  #samples = [];
  #opened = null; // {sample, token}
  #writing = null; // the controller of the stream
  #error = null;
  #request = null; // the last one, for the commands
  #encoded = new Latest(); // the tokens of the text
  #prompt = null; // of the last request: {ids, total, maxTokens, context}
  #draw = oncePerFrame(() => this.#drawNow());
  #copied;
  #isDestroyed = false;
  #link = settled(async () => {
    const z = await this.#app.text.write(this.#app.text.value);
    if (z !== undefined) this.#app.go({ z }, { replace: true });
  }, 300);

  constructor(app, host) {
    this.#app = app;
    this.#host = host;
    host.className = "view write-view";
    this.#copied = new CopiedPassages(app.api, () => this.#draw());
  }

  destroy() {
    this.#isDestroyed = true;
    this.#writing?.abort();
    this.#encoded.clear();
  }

  /** Take what the address says. */
  async update() {
    await this.#app.text.read(this.#app.state.params.get("z"));
    this.#encode();
    this.#draw();
  }

  /** Ask how many tokens the text has, to tell how many of them the model gets. */
  #encode() {
    const { api, model, text } = this.#app;
    if (!model || !text.value || this.#isDestroyed) return this.#encoded.clear();
    const work = (signal) => api.post("/tokenize", { model: model.id, prompt: text.value }, signal);
    return this.#encoded.ask(JSON.stringify([model.name, text.value]), work, () => this.#draw());
  }

  /** What of the prompt the model gets: of the samples that are shown, or else if the text were continued now. */
  get #used() {
    if (this.#samples.length) return this.#prompt;
    const { reply, error } = this.#encoded;
    return reply && !error ? fitted(reply, this.#length) : null;
  }

  get #values() {
    const { params } = this.#app.state;
    return Object.fromEntries(
      SLIDERS.map(({ param, low, high, initial }) => [param, numberParam(params, param, { initial, low, high })]),
    );
  }

  get #count() {
    const count = numberParam(this.#app.state.params, "n", { initial: 1 });
    return COUNTS.includes(count) ? count : 1;
  }

  get #length() {
    return Math.round(numberParam(this.#app.state.params, "len", LENGTH));
  }

  #drawNow() {
    if (this.#isDestroyed) return;
    if (this.#app.models !== null && !this.#app.models.length) {
      render(noModel(), this.#host);
      return;
    }
    const isWriting = this.#writing !== null;
    const before = [...this.#app.text.value].slice(-COMPARED).join("");
    const texts = isWriting ? [] : this.#samples.map((sample) => before + sample.text);
    const compared = { run: this.#app.model?.run ?? null, texts };
    this.#copied.want([compared]);
    const copied = this.#copied.of(compared);
    render(
      html`
        <h1 class="hidden">Write</h1>
        <div class="pair">
          <div class="view">
            <section class="card">
              <label class="field">
                <span>Text</span>
                <textarea
                  rows="8" spellcheck="false" placeholder="Begin a text, or leave it empty."
                  .value=${this.#app.text.value} @input=${(event) => this.#edit(event.target.value)}
                ></textarea>
              </label>
              <div class="controls">
                ${isWriting
                  ? html`<button @click=${() => this.#writing.abort()}>Stop</button>`
                  : html`<button class="primary" ?disabled=${!this.#app.model} @click=${() => this.#start()}>Write</button>`}
                <label>continuations
                  <select @change=${(event) => this.#set("n", Number(event.target.value), 1)}>
                    ${COUNTS.map((count) => html`<option .selected=${count === this.#count}>${count}</option>`)}
                  </select>
                </label>
                <label>tokens
                  <input
                    type="number" min=${LENGTH.low} max=${LENGTH.high} .value=${String(this.#length)}
                    @change=${(event) => this.#set("len", Number(event.target.value), LENGTH.initial)}
                  />
                </label>
              </div>
              ${truncationNote(this.#used)}
              ${missingModels(this.#app.missing("m"))}
              ${this.#error ? html`<p class="note diverged" role="alert">${this.#error.message}</p>` : nothing}
            </section>
            ${this.#samples.map((sample, index) =>
              this.#card(sample, index, isWriting, { found: copied?.texts[index] ?? null, from: [...before].length }),
            )}
            ${this.#samples.length && copied ? comparedNote([copied]) : nothing}
            ${this.#request ? commands(location.origin, this.#request, Boolean(this.#app.api.key)) : nothing}
          </div>
          <section class="card" aria-label="Sampling">
            <h2>Sampling</h2>
            ${sliders(this.#values, (param, value) => this.#set(param, value, SLIDERS.find((one) => one.param === param).initial))}
          </section>
        </div>
      `,
      this.#host,
    );
  }

  #card(sample, index, isWriting, copied) {
    return sampleCard(sample, {
      isWriting,
      copied,
      number: index + 1,
      opened: this.#opened?.sample === index ? this.#opened.token : null,
      open: (token) => {
        const isSame = this.#opened?.sample === index && this.#opened.token === token;
        this.#opened = isSame ? null : { sample: index, token };
        this.#draw();
      },
      keep: () => this.#keep(sample),
      branch: (token, other) => this.#write([branched(sample, token, other)]),
    });
  }

  #edit(value) {
    this.#app.text.value = value;
    this.#samples = []; // they continue another text
    this.#link();
    this.#draw();
  }

  #set(param, value, initial) {
    this.#app.go({ [param]: value === initial ? null : value }, { replace: true });
  }

  async #keep(sample) {
    const value = this.#app.text.value + sample.text;
    this.#samples = [];
    this.#opened = null;
    const z = await this.#app.text.write(value);
    if (z !== undefined) this.#app.go({ z });
  }

  #start() {
    this.#write(Array.from({ length: this.#count }, () => emptySample()));
  }

  /** Continue samples that have the same text, as one request. */
  async #write(samples) {
    const { api, model, text } = this.#app;
    const controller = new AbortController();
    [this.#writing, this.#samples, this.#opened, this.#error] = [controller, samples, null, null];
    this.#draw();
    try {
      const encoded = await api.post("/tokenize", { model: model.id, prompt: text.value + samples[0].text }, controller.signal);
      this.#prompt = fitted(encoded, this.#length);
      const { ids, maxTokens } = this.#prompt;
      const request = {
        model: model.name,
        prompt: ids.length ? ids : "",
        max_tokens: maxTokens,
        n: samples.length,
        ...samplingFields(this.#values),
      };
      const body = await api.stream("/v1/completions", { ...request, logprobs: ALTERNATIVES, stream: true }, controller.signal);
      for await (const event of readEvents(body)) {
        if (event.error) throw new Error(event.error.message);
        this.#request = { ...request, prompt: encoded.tokens.length > ids.length ? ids : text.value + samples[0].text, seed: event.seed };
        for (const choice of event.choices) this.#samples[choice.index] = extended(this.#samples[choice.index], choice);
        this.#draw();
      }
    } catch (error) {
      if (error.name !== "AbortError") this.#error = error;
    }
    if (this.#writing === controller) this.#writing = null;
    this.#draw();
  }
}
