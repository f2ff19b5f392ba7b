// The page: its frame, the state in its address, and the view that this names.

import { Api } from "./api.js";
import { LinkedText } from "./linked_text.js";
import { modelOptions } from "./model_options.js";
import { findModel, missingIds, modelsVersion, pinnedId } from "./models.js";
import { ModelsView } from "./models_view.js";
import { NextView } from "./next_view.js";
import { repeat, settled } from "./polling.js";
import { ReadView } from "./read_view.js";
import { RunsView } from "./runs_view.js";
import { formatHash, keyIn, parseHash, withParams } from "./state.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";
import { WriteView } from "./write_view.js";

const INTERVAL = 2000; // ms between two looks at the runs and models
const ANNOUNCED = 4000; // ms

const VIEWS = {
  runs: { label: "Runs", title: "Curves and samples", View: RunsView },
  read: { label: "Read", title: "A text, token by token", View: ReadView },
  next: { label: "Next", title: "The next token", View: NextView },
  write: { label: "Write", title: "A text that the model continues", View: WriteView },
  models: { label: "Models", title: "Shapes, checkpoints and memory", View: ModelsView },
};
const SHARED = ["m", "z", "tree"]; // parameters that a link to another view keeps

/** What the views use: the API, the state, the runs and models, and the text that they share. */
class App {
  api = new Api();
  text = new LinkedText();
  rows = null; // null while nothing was received
  models = null;
  memory = null; // the rest of the reply that lists the models: what is in memory, and where
  state = parseHash("");
  #modelsVersion = null;
  #failure = null; // {message, needsKey}
  #view = null;
  #name = null;
  #polling = null;
  #announced = null;
  // Browsers refuse to change the address many times a second, as while a slider is moved.
  #writeAddress = settled(() => history.replaceState(null, "", formatHash(this.state)), 200);

  start() {
    const key = keyIn(location.hash);
    if (key !== null) {
      this.api.key = key;
      history.replaceState(null, "", "#/runs");
    }
    for (const event of ["popstate", "hashchange"]) addEventListener(event, () => this.#show(parseHash(location.hash)));
    this.#polling = repeat(() => this.#poll(), { interval: INTERVAL, report: (error, wait) => this.#report(error, wait) });
    this.#show(parseHash(location.hash));
  }

  /** The model that the address names, or the first one; null if there is none. */
  get model() {
    return findModel(this.models ?? [], this.state.params.get("m"));
  }

  /** The ids in parameters of the address that no model has. */
  missing(...names) {
    return this.models === null ? [] : missingIds(this.models, names.map((name) => this.state.params.get(name)));
  }

  /** Change parameters of the address; `replace` makes no entry in the history. */
  go(changes, { replace = false } = {}) {
    const state = { view: this.state.view, params: withParams(this.state.params, changes) };
    if (!replace && formatHash(state) !== formatHash(this.state)) {
      history.replaceState(null, "", formatHash(this.state));
      history.pushState(null, "", formatHash(state));
    }
    this.#show(state);
    this.#writeAddress();
  }

  /** Tell what has happened, for a few seconds; if it is shown elsewhere, only to a screen reader. */
  announce(text, { isShown = false } = {}) {
    const line = document.getElementById("announcement");
    line.textContent = text;
    line.classList.toggle("hidden", isShown);
    clearTimeout(this.#announced);
    this.#announced = setTimeout(() => (line.textContent = ""), ANNOUNCED);
  }

  #show(state) {
    this.state = state;
    if (this.#name !== state.view) {
      this.#view?.destroy();
      const content = document.getElementById("content");
      content.replaceChildren();
      this.#name = state.view;
      this.#view = new VIEWS[state.view].View(this, content.appendChild(document.createElement("div")));
      document.title = `${VIEWS[state.view].label} · Tokenloom`;
    }
    this.#update();
  }

  async #poll() {
    const { runs, models_version } = await this.api.get("/api/runs");
    this.rows = runs;
    // The server shares the machine with the training: it is asked for the models only when they can have changed.
    const version = modelsVersion(runs, models_version);
    if (version !== this.#modelsVersion || this.#name === "models") {
      const models = await this.api.get("/api/models");
      [this.models, this.memory] = [models.models, models];
      this.#modelsVersion = version;
    }
    await this.#view?.refresh?.();
  }

  #report(error, wait) {
    const before = this.#failure?.message ?? null;
    this.#failure = error && failureOf(error, wait);
    if ((this.#failure?.message ?? null) !== before) this.announce(this.#failure?.message ?? "Connected.", { isShown: this.#failure !== null });
    this.#update();
  }

  #update() {
    render(this.#top(), document.getElementById("top"));
    render(this.#links(), document.getElementById("rail"));
    this.#view?.update();
  }

  #top() {
    const failure = this.#failure;
    return html`
      <span class="brand">Tokenloom</span>
      ${this.#picker()}
      <button class="quiet" @click=${() => this.#copyLink()}>Copy link</button>
      ${failure
        ? html`<div class="banner" role="status">
            <strong>${failure.message}</strong> ${failure.advice}
            ${failure.needsKey
              ? html`<form @submit=${(event) => this.#enterKey(event)}>
                  <label>Key <input name="key" type="password" autocomplete="off" required /></label><button>Use it</button>
                </form>`
              : html`<button @click=${() => this.#polling.now()}>Try now</button>`}
          </div>`
        : nothing}
    `;
  }

  #picker() {
    if (this.models === null) return html`<span class="picker skeleton">Models</span>`;
    if (!this.models.length) return html`<span class="picker soft">No model yet</span>`;
    const chosen = this.state.params.get("m") ?? this.models[0].id;
    return html`<label class="picker">
      <span>Model</span>
      <select @change=${(event) => this.go({ m: event.target.value })}>
        ${this.model ? nothing : html`<option selected disabled>${chosen} (removed)</option>`}
        ${modelOptions(this.models, this.rows, chosen)}
      </select>
    </label>`;
  }

  #links() {
    const shared = SHARED.map((name) => [name, this.state.params.get(name)]).filter(([, value]) => value !== null);
    return Object.entries(VIEWS).map(
      ([view, { label, title }]) =>
        html`<a
          href=${formatHash({ view, params: new URLSearchParams(shared) })}
          title=${title}
          aria-current=${view === this.state.view ? "page" : nothing}
          >${label}</a
        >`,
    );
  }

  async #copyLink() {
    const { view, params } = this.state;
    const pinned = this.model ? { m: pinnedId(this.models, params.get("m")) } : {};
    const hash = formatHash({ view, params: withParams(params, pinned) });
    if (this.text.isTooLong && view !== "runs") return this.announce("The text is too long to link.");
    history.replaceState(null, "", hash);
    this.#show(parseHash(hash));
    try {
      await navigator.clipboard.writeText(`${location.origin}/${hash}`);
      this.announce("The link is copied.");
    } catch {
      this.announce("The address of this page is the link: copy it from the address bar.");
    }
  }

  #enterKey(event) {
    event.preventDefault();
    this.api.key = new FormData(event.target).get("key");
    this.#polling.now();
  }
}

function failureOf(error, wait) {
  if (error.status === 401) return { message: "The server needs a key.", advice: "", needsKey: true };
  if (error.isDisconnected) {
    const advice = `What was received stays. Next attempt in ${Math.round(wait / 1000)}\u00a0s.`;
    return { message: "Disconnected from the server.", advice, needsKey: false };
  }
  return { message: error.message, advice: "", needsKey: false };
}

new App().start();
