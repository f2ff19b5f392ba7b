// The parts of the Models view: the table of models, checkpoints, shape and memory.

import { ago, bytes, compact, counted, fixed, whole } from "./format.js";
import { shapeFacts } from "./models.js";
import { SIGNS, describe } from "./run_status.js";
import { repeat } from "./vendor/lit-html-3.3.3/directives/repeat.js";
import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

const LINKS = { read: "Read", next: "Next", write: "Write" };
const keyOf = ({ id }) => id; // rows keep their elements, and with them the focus, when others appear above them

/** The table of all models; `chosen` is the id of the one that is shown below. */
export function modelTable(entries, { chosen, now, choose }) {
  return html`<div class="scroll" role="region" aria-label="Models" tabindex="0">
    <table class="models">
      <thead>
        <tr>
          <th scope="col">Model</th><th scope="col">State</th><th scope="col" class="more many">Family</th>
          <th scope="col" class="number more">Parameters</th><th scope="col" class="more most">Tokenizer</th>
          <th scope="col" class="number more many">Checkpoints</th><th scope="col" class="number more many">Newest step</th>
          <th scope="col" class="number">Lowest loss</th><th scope="col" class="number">In memory</th>
        </tr>
      </thead>
      <tbody>
        ${repeat(entries, keyOf, ({ id, row, checkpoints, bytes: size }) => {
          const isChosen = id === chosen;
          const target = checkpoints.find((one) => one.isNewest) ? id : checkpoints[0]?.id;
          return html`<tr class=${isChosen ? "selected" : ""}>
            <th scope="row">
              ${target
                ? html`<button class="link" aria-current=${isChosen ? "true" : nothing} @click=${() => choose(target)}>${id}</button>`
                : html`<span class="soft">${id}</span>`}
            </th>
            <td>${row ? html`<span class="state ${row.state}" title=${describe(row, now)}>${SIGNS[row.state]} ${row.state}</span>` : "–"}</td>
            <td class="more many">${row?.family ?? "–"}</td>
            <td class="number more">${row?.parameters == null ? "–" : compact(row.parameters)}</td>
            <td class="more most">${row?.tokenizer ?? "–"}</td>
            <td class="number more many">${row ? whole(checkpoints.length) : "–"}</td>
            <td class="number more many">${row && checkpoints.length ? whole(checkpoints[0].step) : "–"}</td>
            <td class="number">${fixed(row?.best_val_loss)}</td>
            <td class="number">${size ? bytes(size) : "–"}</td>
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

/**
 * The checkpoints of a run, or the weights of a model without one, with links to the views that use them.
 * `comparison` is the address of the comparison of the first one with the newest; null if they are the same.
 */
export function checkpointTable(entry, { chosen, pinned, figures, now, link, comparison, choose }) {
  const isRun = entry.row !== null;
  return html`<section class="card" aria-label="Checkpoints">
    <h2>${entry.id}<small> ${isRun ? counted(entry.checkpoints.length, "checkpoint") : "a model without a run"}</small></h2>
    <div class="scroll" role="region" aria-label="Checkpoints of ${entry.id}" tabindex="0">
      <table class="checkpoints">
        <thead>
          <tr>
            <th scope="col">${isRun ? "Step" : "Model"}</th><th scope="col" class="more">Written</th>
            ${isRun
              ? html`<th scope="col" class="number">Validation loss</th><th scope="col" class="number more">Bits per byte</th>`
              : nothing}
            <th scope="col" class="number more many">In memory</th><th scope="col">Open in</th>
          </tr>
        </thead>
        <tbody>
          ${repeat(entry.checkpoints, keyOf, (checkpoint) => {
            const isChosen = checkpoint.name === chosen.name;
            const found = figures?.get(checkpoint.name);
            return html`<tr class=${isChosen ? "selected" : ""} data-name=${checkpoint.name}>
              <th scope="row">
                <span class="run-name">
                  <button
                    class="link" aria-current=${isChosen ? "true" : nothing}
                    title=${isRun ? "Pin this step" : nothing} @click=${() => choose(checkpoint.id)}
                  >${isRun ? whole(checkpoint.step) : checkpoint.id}</button>
                  ${checkpoint.isNewest ? html`<span class="tag">newest</span>` : nothing}
                  ${checkpoint.isBest ? html`<span class="tag best">best</span>` : nothing}
                  ${checkpoint.isFirst ? html`<span class="tag">first</span>` : nothing}
                  ${isRun && pinned === checkpoint.id ? html`<span class="tag pinned">pinned</span>` : nothing}
                </span>
              </th>
              <td class="more" title=${new Date(1000 * checkpoint.created).toLocaleString()}>${ago(now - checkpoint.created)}</td>
              ${isRun
                ? html`<td class="number" data-figure="val_loss">${figures ? fixed(found?.val_loss) : "…"}</td>
                    <td class="number more" data-figure="val_bits_per_byte">${figures ? fixed(found?.val_bits_per_byte) : "…"}</td>`
                : nothing}
              <td class="number more many">${checkpoint.bytes ? bytes(checkpoint.bytes) : "–"}</td>
              <td>
                <span class="links">${Object.entries(LINKS).map(
                  ([view, label]) => html`<a href=${link(view, checkpoint.id)} aria-label="${label} with ${checkpoint.name}">${label}</a>`,
                )}</span>
              </td>
            </tr>`;
          })}
        </tbody>
      </table>
    </div>
    ${comparison ? html`<p class="soft"><a href=${comparison}>Compare the first with the newest checkpoint</a></p>` : nothing}
    ${isRun
      ? html`<p class="soft">
          A step without a figure was not evaluated. Choosing a step pins it: the other views and their links then keep these weights.
        </p>`
      : nothing}
  </section>`;
}

/** The shape of a model; null while it is loaded. */
export function shapePanel(entry, shape, error) {
  return html`<section class="card" aria-label="Shape">
    <h2>Shape</h2>
    ${shape
      ? facts(shapeFacts(shape, entry.row))
      : error
        ? html`<p class="note diverged" role="alert">${error.message}</p>`
        : html`<div class="skeleton block tall" role="status" aria-label="Loading"></div>`}
  </section>`;
}

function facts(rows) {
  return html`<dl class="facts">
    ${rows.map(([label, value, more]) => html`<dt>${label}</dt><dd>${value ? html`<strong>${value}</strong> ` : nothing}${more ? html`<small>${more}</small>` : nothing}</dd>`)}
  </dl>`;
}

/** What is in memory, next to the budget for it. */
export function memoryPanel(memory, { link }) {
  const { in_memory: uses, memory_bytes: used, memory_budget_bytes: budget } = memory;
  const total = Math.max(used, budget, 1);
  const summary = `${bytes(used)} of ${bytes(budget)}`;
  return html`<section class="card" aria-label="Memory">
    <h2>Memory<small> ${summary} for models, on ${memory.device} in ${memory.precision}</small></h2>
    <div class="memory-bar" role="img" aria-label="${summary} used">
      ${uses.map((use) => html`<span title="${use.name}: ${bytes(use.memory_bytes)}" .style=${`width:${(100 * use.memory_bytes) / total}%`}></span>`)}
    </div>
    ${uses.length
      ? html`<ul class="in-memory">
            ${[...uses].reverse().map(
              (use) => html`<li>
                ${use.id ? html`<a href=${link(use.id)}>${use.name}</a>` : html`<span>${use.name} <small>removed</small></span>`}
                <span>${bytes(use.memory_bytes)}${use.users ? html` <small>in use</small>` : nothing}</span>
              </li>`,
            )}
          </ul>
          <p class="soft">The most recently used first. Above the budget, models that nobody uses are dropped, beginning with the last.</p>`
      : html`<p class="soft">Nothing is loaded. A model is loaded when it is first used to read, predict or write.</p>`}
  </section>`;
}
