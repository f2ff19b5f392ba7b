// The parts of the Runs view besides the chart: table, readout, samples and differences.

import { comparedNote, copiedNote, underlined } from "./copied_parts.js";
import { compact, duration, fixed, whole } from "./format.js";
import { READOUT } from "./run_drawing.js";
import { SIGNS, describe, figuresOf, resumeCommand, settingText } from "./run_status.js";
import { evenlySpaced, sampleSteps, samplesAt, valueAt } from "./series.js";
import { repeat } from "./vendor/lit-html-3.3.3/directives/repeat.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const HIDDEN_ROWS = 50;
const MOST_COMPARED = 64; // texts, as the server accepts them
// The figures of a run: name, label, the class of a column that narrow screens leave out, and an explanation.
const FIGURES = [
  ["step", "Step", "more"],
  ["train", "Training loss", "most"],
  ["val", "Validation loss", "", "Of a finished run: over the whole validation text"],
  ["best", "Lowest", "", "The lowest validation loss of the evaluations during training, each over a part of the text"],
  ["bits", "Bits per byte", "most"],
  ["rate", "Tokens/s", "most"],
  ["parameters", "Parameters", "most"],
  ["time", "Time", "more"],
];

const keyOf = (row) => row.run; // rows keep their elements, and with them the focus, when others appear above them

/** The table of all runs; `colors` are those of the selected ones. */
export function runTable(rows, { selected, colors, toggle, only, now }) {
  return html`<div class="scroll" role="region" aria-label="Runs" tabindex="0">
    <table class="runs">
      <thead>
        <tr>
          <th scope="col">Run</th><th scope="col">State</th>
          ${FIGURES.map(([, label, kind, title]) => html`<th scope="col" class="number ${kind}" title=${title ?? nothing}>${label}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${repeat(rows, keyOf, (row) => {
          const isSelected = selected.includes(row.run);
          const figures = figuresOf(row);
          return html`<tr class=${isSelected ? "selected" : ""}>
            <th scope="row">
              <div class="run-name">
                <input type="checkbox" aria-label="Show ${row.run}" .checked=${isSelected} @change=${() => toggle(row.run)} />
                ${colors.has(row.run) ? html`<span class="swatch" .style=${`background:${colors.get(row.run)}`}></span>` : nothing}
                <button class="link" @click=${() => only(row.run)} title=${row.data ?? ""}>${row.run}</button>
              </div>
            </th>
            <td><span class="state ${row.state}" title=${describe(row, now)}>${SIGNS[row.state]} ${row.state}</span></td>
            ${FIGURES.map(([name, , kind]) => html`<td class="number ${kind}">${figures[name]}</td>`)}
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

/** The state of a selected run in a sentence, with the command that continues it. */
export function stateNote(row, now, isSeveral) {
  const command = resumeCommand(row);
  return html`<p class="note ${row.state}">
    <span class="state ${row.state}">${SIGNS[row.state]}</span>
    ${isSeveral ? html`<strong>${row.run}</strong>: ` : nothing}${describe(row, now)}
    ${command ? html`<code>${command}</code>` : nothing}
  </p>`;
}

/** Which line is which, and in what unit. */
export function lineLegend(lines, unit) {
  return html`<p class="legend lines">
    ${lines.map(
      ({ label, color, width }) =>
        html`<span><span class="stroke" .style=${`border-top:${2 * width}px solid ${color}`}></span>${label}</span>`,
    )}
    <span class="unit">${unit}</span>
  </p>`;
}

/** The values of a run at a step. */
export function readout(run, cursor, isSeveral) {
  const step = Math.min(cursor, run.reference?.step.at(-1) ?? cursor);
  const value = (key) => valueAt(run.columns?.get(key), step);
  const position = run.reference && {
    epoch: fixed(valueOf(run.reference, "epoch", step), 2),
    "tokens seen": compact(valueOf(run.reference, "tokens", step)),
    time: duration(valueOf(run.reference, "seconds", step)),
  };
  return html`<dl class="readout" data-run=${run.id}>
    ${isSeveral
      ? html`<div class="name"><dt><span class="swatch" .style=${`background:${run.color}`}></span></dt><dd>${run.id}</dd></div>`
      : nothing}
    <div><dt>step</dt><dd>${whole(step)}</dd></div>
    ${Object.entries(position ?? {}).map(([label, text]) => html`<div><dt>${label}</dt><dd>${text}</dd></div>`)}
    ${READOUT.filter(([key]) => value(key) !== null).map(
      ([key, label, decimals]) =>
        html`<div data-key=${key}><dt>${label}</dt><dd>${written(value(key), decimals)}</dd></div>`,
    )}
  </dl>`;
}

function valueOf(column, axis, step) {
  return valueAt({ step: column.step, value: column[axis] }, step) ?? column[axis][0];
}

/** The samples of runs at a step, with a slider over all steps that have some; `copiedOf` a run says what is copied. */
export function samplesPanel(runs, step, { scrub, isLoading, copiedOf }) {
  const steps = [...new Set(runs.flatMap((run) => sampleSteps(run.samples)))].sort((a, b) => a - b);
  if (!steps.length) return html`<p class="soft">${isLoading ? "Loading…" : "No sample yet: one is generated at every evaluation."}</p>`;
  const index = Math.max(0, steps.filter((one) => one <= step).length - 1);
  const shown = runs.map((run) => ({ run, samples: samplesAt(run.samples, step), copied: copiedOf(run) }));
  return html`
    <label class="slider">
      <span>earlier</span>
      <input
        type="range" min="0" max=${steps.length - 1} .value=${String(index)} ?disabled=${steps.length < 2}
        aria-label="Step of the sample" aria-valuetext="step ${whole(steps[index])}"
        @input=${(event) => scrub(steps[Number(event.target.value)])}
      />
      <span>later</span>
    </label>
    ${shown.map(({ run, samples, copied }) =>
      samples.map((sample, number) => {
        const found = copied?.texts[number] ?? null;
        return html`<article class="sample">
          <p class="soft">${runs.length > 1 ? `${run.id}, ` : ""}step ${whole(sample.step)}, ${compact(sample.tokens)} tokens seen</p>
          <pre>${underlined(sample.prompt, sample.text, found)}</pre>
          ${copiedNote(found, [...sample.prompt].length, [...sample.text].length)}
        </article>`;
      }),
    )}
    ${comparedNote(shown.filter(({ samples }) => samples.length).map(({ copied }) => copied))}
  `;
}

/** The texts at a step that are compared with the training text of their run. */
export function comparedTexts(run, step) {
  const texts = samplesAt(run.samples, step).map((sample) => sample.prompt + sample.text);
  return { run: run.id, texts: texts.slice(0, MOST_COMPARED) };
}

/** The settings in which the selected runs differ. */
export function differencesTable(reply) {
  if (!reply) return nothing;
  if (!reply.differences.length) {
    return html`<section class="card"><h2>Differences</h2><p class="soft">The settings are the same.</p></section>`;
  }
  return html`<section class="card">
    <h2>Differences</h2>
    <div class="scroll" role="region" aria-label="Differences" tabindex="0">
      <table class="differences">
        <thead><tr><th scope="col">Setting</th>${reply.runs.map((id) => html`<th scope="col">${id}</th>`)}</tr></thead>
        <tbody>
          ${reply.differences.map(
            ({ key, values }) => html`<tr><th scope="row">${key}</th>${values.map((value) => html`<td>${settingText(value)}</td>`)}</tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}

/** The values of a chart as a table for screen readers. */
export function hiddenTable(run, labels) {
  const column = run.reference;
  if (!column) return nothing;
  const keys = Object.keys(labels).filter((key) => run.columns.get(key)?.value.length);
  return html`<div class="hidden"><table>
    <caption>${run.id}: values at some steps</caption>
    <thead><tr><th scope="col">step</th>${keys.map((key) => html`<th scope="col">${labels[key]}</th>`)}</tr></thead>
    <tbody>
      ${evenlySpaced(column.step.length, HIDDEN_ROWS).map(
        (index) => html`<tr><th scope="row">${whole(column.step[index])}</th>
          ${keys.map((key) => html`<td>${precise(valueAt(run.columns.get(key), column.step[index]))}</td>`)}</tr>`,
      )}
    </tbody>
  </table></div>`;
}

function written(value, decimals) {
  if (decimals === null) return compact(value);
  return decimals === 0 ? whole(value) : fixed(value, decimals);
}

function precise(value) {
  return value === null ? "–" : String(Number(value.toPrecision(5)));
}
