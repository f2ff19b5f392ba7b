// Attention weights: what is shown of a head, of which row t has the weights of token t for itself and those before.

import { HEAT_LEVELS } from "./scales.js";

/** The level of a weight, from 0 to 12. The scale is a square root: most of many weights are small. */
export function weightLevel(weight) {
  return Math.round(HEAT_LEVELS * Math.sqrt(Math.min(1, Math.max(0, weight))));
}

/** The largest weights of a row: [{index, weight}], at most `limit`. */
export function largestWeights(row, limit) {
  return row
    .map((weight, index) => ({ index, weight }))
    .sort((a, b) => b.weight - a.weight || b.index - a.index)
    .slice(0, limit);
}

/** Where a head looks on average: shares of {itself, previous, first}, and the mean distance in tokens. The first token has no choice. */
export function averages(rows) {
  const sums = { itself: 0, previous: 0, first: 0, distance: 0 };
  const count = rows.length - 1;
  if (count < 1) return null;
  rows.slice(1).forEach((row, number) => {
    const own = number + 1;
    sums.itself += row[own];
    sums.previous += row[own - 1];
    sums.first += row[0];
    row.forEach((weight, index) => (sums.distance += weight * (own - index)));
  });
  return Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / count]));
}

/** A layer and a head that the model has, from those in an address. */
export function headOf({ layers, heads }, layer, head) {
  return { layer: Math.min(layers - 1, Math.trunc(layer)), head: Math.min(heads - 1, Math.trunc(head)) };
}

/** The head that an arrow key moves to; null for another key. */
export function movedHead({ layers, heads }, { layer, head }, key) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!Object.hasOwn(moves, key)) return null;
  const [down, right] = moves[key];
  const kept = (value, count) => Math.min(count - 1, Math.max(0, value));
  return { layer: kept(layer + down, layers), head: kept(head + right, heads) };
}

/** The row and column at a point of a map that has a number of rows, the point as a share of its width and height. */
export function cellAt(x, y, rows) {
  const kept = (share) => Math.min(rows - 1, Math.max(0, Math.floor(share * rows)));
  return { row: kept(y), column: kept(x) };
}
