// The options of a list in which a model is chosen.

import { modelGroups } from "./models.js";
import { html } from "./vendor/lit-html-3.3.3/lit-html.js";

/** The models by their runs, as `modelGroups` groups them. */
export function modelOptions(models, rows, chosen) {
  return modelGroups(models, rows ?? [], chosen).map(
    ({ label, options }) => html`<optgroup label=${label}>
      ${options.map(({ id, label, isChosen }) => html`<option value=${id} .selected=${isChosen}>${label}</option>`)}
    </optgroup>`,
  );
}
