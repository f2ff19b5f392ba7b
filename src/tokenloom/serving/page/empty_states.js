// What is shown while there is nothing else to show.

import { html, nothing } from "./vendor/lit-html-3.3.3/lit-html.js";

/** Nothing was received yet. */
export function skeleton() {
  return html`<div class="skeleton block" role="status" aria-label="Loading"></div>
    <div class="skeleton block tall"></div>`;
}

/** There are no runs. */
export function noRuns() {
  return html`<section class="card empty">
    <h2>No runs yet</h2>
    <p>A run appears here from its first second. Start one in the folder in which the server runs:</p>
    <pre>tokenloom train</pre>
    <p>It trains on the documentation of Python's standard library for two minutes.</p>
  </section>`;
}

/** There are no models. */
export function noModel() {
  return html`<section class="card empty">
    <h2>No model yet</h2>
    <p>The first checkpoint of a run appears here by itself. A model that is on disk is served with:</p>
    <pre>tokenloom serve MODEL</pre>
  </section>`;
}

/** Models that the address names and that are not there. */
export function missingModels(ids) {
  if (!ids.length) return nothing;
  return html`<p class="note diverged" role="alert">
    ${ids.join(" and ")} ${ids.length > 1 ? "are" : "is"} not served, or the checkpoint was removed. Choose another model.
  </p>`;
}
