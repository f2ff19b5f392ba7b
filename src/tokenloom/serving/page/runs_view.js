// The view of runs: curves and samples on one cursor, while the runs train.

import { CopiedPassages } from "./copied.js";
import { Curves } from "./curves.js";
import { noRuns, skeleton } from "./empty_states.js";
import { oncePerFrame, settled } from "./polling.js";
import { CHARTS, MOST_RUNS, drawingOf, formatRange, longestColumn, nonFiniteNotes, parseRange } from "./run_drawing.js";
import { RunFeed } from "./run_feed.js";
import { comparedTexts, differencesTable, hiddenTable, lineLegend, readout, runTable, samplesPanel, stateNote } from "./runs_parts.js";
import { AXES, axisAt, nearestIndex, stepAt } from "./series.js";
import { numberParam } from "./state.js";
import { onThemeChange, readPalette } from "./theme.js";
import { html, nothing, render } from "./vendor/lit-html-3.3.3/lit-html.js";

const LABELS = Object.assign({}, ...Object.values(CHARTS).map((chart) => chart.lines), {
  "train/loss": "training loss",
  "val/loss": "validation loss",
  "val/bits_per_byte": "bits per byte",
});
const BASELINES = "unigram: a model that knows only how frequent each token is; xz and zstd: compressors that are given the training text";
const KEYS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

export class RunsView {
  #app;
  #host;
  #curves = null;
  #feeds = new Map();
  #differences = null; // {key, reply}
  #copied;
  #at = null; // step of the cursor; null: the last one
  #linkedAt = null;
  #zoomed = null; // for which runs and which range points were read
  #error = null;
  #palette = readPalette();
  #drawn = { key: null, drawing: null };
  #draw = oncePerFrame(() => this.#drawNow());
  #link = settled((step) => this.#isDestroyed || this.#app.go({ at: step }, { replace: true }), 250);
  #endTheme;
  #isDestroyed = false;

  constructor(app, host) {
    this.#app = app;
    this.#host = host;
    host.className = "view runs-view";
    this.#copied = new CopiedPassages(app.api, () => this.#draw());
    this.#endTheme = onThemeChange(() => {
      this.#palette = readPalette();
      this.#drawn.key = null;
      this.#draw();
    });
  }

  destroy() {
    this.#isDestroyed = true;
    this.#endTheme();
    this.#curves?.destroy();
  }

  /** Take what the address says. */
  update() {
    const linked = this.#app.state.params.get("at");
    if (linked !== this.#linkedAt) {
      this.#linkedAt = linked;
      this.#at = numberParam(this.#app.state.params, "at");
    }
    this.#draw();
    if (this.#app.rows !== null) this.refresh().catch(() => {}); // the next look reports errors
  }

  /** Read what is missing of the selected runs; called after every look at the table. */
  async refresh() {
    const errors = await Promise.all(this.#selected.map((row) => this.#refreshOne(row)));
    const disconnected = errors.find((error) => error?.isDisconnected);
    if (disconnected) throw disconnected;
    this.#error = errors.find((error) => error !== null) ?? null;
    await Promise.all([this.#readDifferences(), this.#readZoom()]);
    this.#draw();
  }

  async #refreshOne(row) {
    if (row.problem) return null; // its note says why
    try {
      await this.#feed(row.run).refresh(row);
      return null;
    } catch (error) {
      return error;
    }
  }

  async #readDifferences() {
    const key = this.#selectedKey;
    if (this.#differences?.key === key) return;
    const run = this.#selected.filter((row) => !row.problem).map((row) => row.run);
    const reply = run.length > 1 ? await this.#app.api.get("/api/differences", { run }) : null;
    if (key === this.#selectedKey) this.#differences = { key, reply };
  }

  #feed(id) {
    if (!this.#feeds.has(id)) this.#feeds.set(id, new RunFeed(this.#app.api, id));
    return this.#feeds.get(id);
  }

  get #selected() {
    const rows = this.#app.rows ?? [];
    const named = this.#app.state.params.getAll("run");
    const found = rows.filter((row) => named.includes(row.run)).slice(0, MOST_RUNS);
    return found.length ? found : rows.slice(0, 1);
  }

  get #selectedKey() {
    return JSON.stringify(this.#selected.map((row) => row.run));
  }

  /** What the address says of the chart. */
  get #choices() {
    const { params } = this.#app.state;
    const axis = params.get("x") ?? "step";
    const chart = params.get("y") ?? "loss";
    return {
      axis: Object.hasOwn(AXES, axis) ? axis : "step",
      chart: Object.hasOwn(CHARTS, chart) ? chart : "loss",
      isLog: params.get("log") === "1",
      hasBaselines: params.get("base") !== "0",
      range: parseRange(params.get("range")),
    };
  }

  /** The selected runs with what is drawn of them. */
  get #runs() {
    const rows = this.#selected;
    return rows.map((row, index) => {
      const feed = this.#feed(row.run);
      return {
        id: row.run,
        columns: feed.zoomed ?? feed.columns,
        reference: longestColumn(feed.columns),
        samples: feed.samples,
        baselines: feed.files?.baselines ?? null,
        changes: feed.changes,
        color: rows.length > 1 ? this.#palette.runs[index] : this.#palette.train,
      };
    });
  }

  #drawNow() {
    if (this.#isDestroyed) return;
    const { rows } = this.#app;
    if (!rows?.length) {
      this.#curves?.destroy();
      this.#curves = null;
      render(rows === null ? skeleton() : noRuns(), this.#host);
      return;
    }
    const runs = this.#runs;
    const choices = this.#choices;
    const drawing = this.#drawing(runs, choices);
    render(this.#layout(runs, choices, drawing), this.#host);
    this.#curves ??= new Curves(this.#host.querySelector(".plot"), {
      onCursor: (x) => this.#scrub(this.#stepAt(x)),
      onRange: (range) => this.#zoom(range),
    });
    this.#copied.want(runs.map((run) => comparedTexts(run, this.#step(runs))));
    this.#curves.draw(drawing);
    this.#placeCursor();
  }

  /** What the chart shows: the same object as before while nothing of it has changed, as when the cursor moves. */
  #drawing(runs, choices) {
    const key = JSON.stringify([runs.map((run) => [run.id, run.changes]), choices]);
    if (key !== this.#drawn.key) this.#drawn = { key, drawing: drawingOf(runs, { ...choices, palette: this.#palette }) };
    return this.#drawn.drawing;
  }

  #layout(runs, choices, drawing) {
    const now = Date.now() / 1000;
    const selected = this.#selected;
    const colors = new Map(runs.length > 1 ? runs.map((run) => [run.id, run.color]) : []);
    const step = this.#step(runs);
    const isLoading = runs.some((run) => run.columns === null) && !selected.every((row) => row.problem);
    const isEmpty = !isLoading && drawing.lines.length === 0;
    return html`
      <h1 class="hidden">Runs</h1>
      ${runTable(this.#app.rows, {
        selected: selected.map((row) => row.run),
        colors,
        now,
        toggle: (id) => this.#toggle(id),
        only: (id) => this.#app.go({ run: id, range: null }),
      })}
      <div class="notes">${selected.map((row) => stateNote(row, now, runs.length > 1))}
        ${this.#error ? html`<p class="note diverged">${this.#error.message}</p>` : nothing}
        ${runs.flatMap((run) => nonFiniteNotes(run.columns, LABELS)).map((note) => html`<p class="note diverged">${note}</p>`)}
      </div>
      <div class="pair">
        <section class="card chart" aria-label="Curves">
          ${this.#controls(choices)}
          ${isEmpty
            ? html`<p class="soft">Nothing was measured yet. The first record comes after a few steps.</p>`
            : lineLegend(drawing.lines, CHARTS[choices.chart].unit)}
          <div
            class="plot ${isLoading ? "skeleton" : isEmpty ? "nothing" : ""}"
            tabindex="0" role="slider" aria-label="Step of the cursor" aria-orientation="horizontal"
            aria-valuemin="0" aria-valuemax=${runs[0]?.reference?.step.at(-1) ?? 0} aria-valuenow=${step}
            aria-valuetext=${this.#valueText(runs, step)}
            @keydown=${(event) => this.#move(event)}
          ></div>
          ${runs.filter((run) => run.reference).map((run) => readout(run, step, runs.length > 1))}
          ${runs.map((run) => hiddenTable(run, LABELS))}
        </section>
        <section class="card samples" aria-label="Samples">
          <h2>Samples</h2>
          ${samplesPanel(runs, step, {
            isLoading,
            scrub: (at) => this.#scrub(at),
            copiedOf: (run) => this.#copied.of(comparedTexts(run, step)),
          })}
        </section>
      </div>
      ${runs.length > 1 ? differencesTable(this.#differences?.reply) : nothing}
    `;
  }

  #controls({ axis, chart, isLog, hasBaselines, range }) {
    const go = (changes) => this.#app.go(changes);
    return html`<div class="controls">
      <div class="segments" role="group" aria-label="Chart">
        ${Object.entries(CHARTS).map(
          ([name, { label }]) =>
            html`<button aria-pressed=${name === chart} @click=${() => go({ y: name })}>${label}</button>`,
        )}
      </div>
      <div class="controls">
        <label>over <select aria-label="Axis" @change=${(event) => go({ x: event.target.value, range: null })}>
          ${Object.entries(AXES).map(([name, { label }]) => html`<option value=${name} .selected=${name === axis}>${label}</option>`)}
        </select></label>
        <label><input type="checkbox" .checked=${isLog} @change=${(event) => go({ log: event.target.checked ? 1 : null })} /> log</label>
        ${CHARTS[chart].baselines
          ? html`<label title=${BASELINES}>
              <input type="checkbox" .checked=${hasBaselines} @change=${(event) => go({ base: event.target.checked ? null : 0 })} />
              baselines
            </label>`
          : nothing}
        ${range ? html`<button @click=${() => this.#zoom(null)}>Show all</button>` : nothing}
      </div>
    </div>`;
  }

  #toggle(id) {
    const ids = this.#selected.map((row) => row.run);
    const changed = ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id];
    if (changed.length > MOST_RUNS) this.#app.announce(`At most ${MOST_RUNS} runs are shown.`);
    this.#app.go({ run: changed.slice(-MOST_RUNS), range: null });
  }

  #zoom(range) {
    this.#app.go({ range: formatRange(range) });
  }

  /** Read the points of the range that the address names, where the chart has buckets. */
  async #readZoom() {
    const { axis, range } = this.#choices;
    const key = JSON.stringify([this.#selectedKey, axis, range]);
    if (key === this.#zoomed) return;
    const reference = this.#runs.find((run) => run.reference)?.reference;
    if (!reference) return;
    this.#zoomed = key;
    const steps = range && range.map((x) => stepAt(reference, axis, x));
    await Promise.all(this.#selected.filter((row) => !row.problem).map((row) => this.#feed(row.run).zoom(steps)));
  }

  /** The step of the cursor, or the last one. */
  #step(runs) {
    return this.#at ?? Math.max(0, ...runs.map((run) => run.reference?.step.at(-1) ?? 0));
  }

  #stepAt(x) {
    const reference = this.#runs.find((run) => run.reference)?.reference;
    return reference ? Math.round(stepAt(reference, this.#choices.axis, x)) : null;
  }

  #scrub(step) {
    if (step === this.#at) return;
    this.#at = step;
    this.#draw();
    this.#link(step);
  }

  #move(event) {
    const positions = this.#curves?.positions ?? [];
    if (event.key === "Escape") return this.#scrub(null);
    if (!(event.key in KEYS) || !positions.length) return;
    event.preventDefault();
    const now = this.#at === null ? positions.length - 1 : nearestIndex(positions, this.#cursorPosition());
    const index = Math.min(positions.length - 1, Math.max(0, now + KEYS[event.key]));
    this.#scrub(this.#stepAt(positions[index]));
  }

  #cursorPosition() {
    const reference = this.#runs.find((run) => run.reference)?.reference;
    return this.#at === null || !reference ? null : axisAt(reference, this.#choices.axis, this.#at);
  }

  #placeCursor() {
    this.#curves.setCursor(this.#cursorPosition());
  }

  #valueText(runs, step) {
    const reference = runs[0]?.columns;
    const parts = ["train/loss", "val/loss"]
      .map((key) => [LABELS[key], reference?.get(key)])
      .filter(([, column]) => column?.value.length)
      .map(([label, column]) => `${label} ${column.value[Math.max(0, nearestIndex(column.step, step))].toFixed(3)}`);
    return [`step ${step}`, ...parts].join(", ");
  }
}
