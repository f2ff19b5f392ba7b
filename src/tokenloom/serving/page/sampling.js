// The sampling parameters of the Next view.

/** The sampling parameters: their names in the address and in the API, and the values at which they are off. */
export const SLIDERS = [
  { param: "temp", field: "temperature", label: "temperature", low: 0, high: 2, step: 0.05, initial: 1 },
  { param: "k", field: "top_k", label: "top-k", low: 0, high: 50, step: 1, initial: 0, off: 0 },
  { param: "p", field: "top_p", label: "top-p", low: 0.05, high: 1, step: 0.05, initial: 1, off: 1 },
  { param: "minp", field: "min_p", label: "min-p", low: 0, high: 0.5, step: 0.01, initial: 0, off: 0 },
];

/** The fields of a request for the values of the sliders: those that are off are left out. */
export function samplingFields(values) {
  const on = SLIDERS.filter(({ param, off }) => values[param] !== off);
  return Object.fromEntries(on.map(({ param, field }) => [field, values[param]]));
}

/** Whether a token can be added to a text: parts of characters cannot. */
export function isPickable(token) {
  return token.text !== "" && !token.text.includes("\ufffd");
}
