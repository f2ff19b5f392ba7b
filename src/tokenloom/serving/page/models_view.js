// The view of models: what is in memory, the shape of each model, and the checkpoints of the runs.

import { modelPath, runPath } from "./api.js";
import { missingModels, noModel, skeleton } from "./empty_states.js";
import { Latest } from "./latest.js";
import { modelEntries } from "./models.js";
import { checkpointTable, memoryPanel, modelTable, shapePanel } from "./models_parts.js";
import { formatHash } from "./state.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

export class ModelsView {
  #app;
  #host;
  #shape = new Latest();
  #run = new Latest();

  constructor(app, host) {
    this.#app = app;
    this.#host = host;
    host.className = "view models-view";
  }

  destroy() {
    this.#shape.clear();
    this.#run.clear();
  }

  /** Take what the address says, and ask for what is not known yet. */
  update() {
    this.#ask();
    this.#draw();
  }

  #ask() {
    const { api, model } = this.#app;
    const draw = () => this.#draw();
    if (!model) return;
    this.#shape.ask(JSON.stringify([model.id, model.name, model.created]), (signal) => api.get(modelPath(model.id), {}, signal), draw);
    if (model.run === null) return;
    const row = this.#app.rows.find((one) => one.run === model.run);
    const checkpoints = this.#app.models.filter((one) => one.run === model.run).map((one) => [one.name, one.created]);
    const key = JSON.stringify([model.run, row?.state, row?.changed, checkpoints]);
    this.#run.ask(key, (signal) => api.get(runPath(model.run), {}, signal), draw);
  }

  #draw() {
    const { models, rows, memory } = this.#app;
    if (models === null) return render(skeleton(), this.#host);
    if (!models.length && !rows.length) return render(noModel(), this.#host);
    const entries = modelEntries(models, rows, memory.in_memory);
    const chosen = this.#app.model;
    const entry = chosen && entries.find((one) => one.id === (chosen.run ?? chosen.id));
    const now = Date.now() / 1000;
    return render(
      html`
        <h1 class="hidden">Models</h1>
        ${missingModels(this.#app.missing("m"))}
        ${modelTable(entries, { chosen: entry?.id, now, choose: (id) => this.#app.go({ m: id }) })}
        ${entry
          ? html`<div class="pair">
              ${checkpointTable(entry, {
                chosen,
                pinned: this.#app.state.params.get("m"),
                now,
                figures: this.#figures(chosen.run),
                link: (view, id) => this.#link(view, id),
                comparison: entry.checkpoints.length > 1 ? this.#link("read", entry.id, { vs: `${entry.id}@first` }) : null,
                choose: (id) => this.#app.go({ m: id }),
              })}
              ${shapePanel(entry, this.#shapeOf(chosen), this.#shape.error)}
            </div>`
          : nothing}
        ${models.length ? nothing : noModel()}
        ${memoryPanel(memory, { link: (id) => this.#link("models", id) })}
      `,
      this.#host,
    );
  }

  /** The validation figures of the checkpoints by their names; null while they are loaded. */
  #figures(run) {
    const { reply, error } = this.#run;
    if (error) return new Map();
    return reply?.row.run === run ? new Map(reply.models.map((model) => [model.name, model])) : null;
  }

  /** The shape of a model; null while it is loaded. All checkpoints of a run have the same. */
  #shapeOf(model) {
    const { reply } = this.#shape;
    const isSame = reply && (model.run === null ? reply.id === model.id : reply.run === model.run);
    return isSame ? reply.shape : null;
  }

  /** The address of a view with a model, with the text, and with further parameters. */
  #link(view, id, more = {}) {
    const params = new URLSearchParams({ m: id, ...more });
    const z = this.#app.state.params.get("z");
    if (z !== null && view !== "models") params.set("z", z);
    return formatHash({ view, params });
  }
}
