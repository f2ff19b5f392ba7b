// The metrics of a run as columns, which grow while it trains.

export const AXES = {
  step: { label: "step" },
  epoch: { label: "epochs" },
  tokens: { label: "tokens seen" },
  seconds: { label: "time" },
};

/** Columns by their keys, from the server's reply, in which several series may have the same axes. */
export function columnsOf(reply) {
  const axes = (series) => Object.entries(reply.axes[series.axes]).map(([axis, positions]) => [axis, positions.slice()]);
  return new Map(
    Object.entries(reply.series).map(([key, series]) => [
      key,
      { ...series, ...Object.fromEntries(axes(series)), nonFinite: series.non_finite.slice() },
    ]),
  );
}

/** Add records to columns of points or buckets; a metric that had no value yet gets a column. */
export function appendRecords(columns, records) {
  for (const record of records) {
    for (const [key, value] of Object.entries(record)) {
      if (key in AXES) continue;
      if (!columns.has(key)) columns.set(key, emptyColumn());
      const column = columns.get(key);
      if (typeof value !== "number") {
        column.nonFinite.push({ step: record.step, value });
        continue;
      }
      for (const axis of Object.keys(AXES)) column[axis].push(record[axis]);
      column.value.push(value);
      column.low?.push(value);
      column.high?.push(value);
      column.count += 1;
    }
  }
}

function emptyColumn() {
  return { count: 0, bucketed: false, step: [], tokens: [], epoch: [], seconds: [], value: [], low: null, high: null, nonFinite: [] };
}

/** The index of the last of ascending numbers that is at most `x`; -1 if there is none. */
export function indexAtOrBefore(numbers, x) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The index of the number nearest to `x`, the earlier of two; -1 without numbers. */
export function nearestIndex(numbers, x) {
  const before = indexAtOrBefore(numbers, x);
  const after = before + 1;
  if (before < 0) return numbers.length ? 0 : -1;
  return after < numbers.length && numbers[after] - x < x - numbers[before] ? after : before;
}

/** The value at or before a step; null if there is none. */
export function valueAt(column, step) {
  if (!column?.step.length) return null;
  const index = indexAtOrBefore(column.step, step);
  return index < 0 ? null : column.value[index];
}

/** The position on an axis that belongs to a step, between the points next to it. */
export function axisAt(column, axis, step) {
  return interpolated(column.step, column[axis], step);
}

/** The step that belongs to a position on an axis. */
export function stepAt(column, axis, x) {
  return interpolated(column[axis], column.step, x);
}

export function interpolated(from, to, x) {
  if (!from.length) return x;
  const index = indexAtOrBefore(from, x);
  if (index < 0) return to[0];
  if (index === from.length - 1) return to[index];
  const share = from[index + 1] === from[index] ? 0 : (x - from[index]) / (from[index + 1] - from[index]);
  return to[index] + share * (to[index + 1] - to[index]);
}

/** The lowest point: {step, value, index}; null without points. */
export function lowest(column) {
  if (!column?.value.length) return null;
  let index = 0;
  for (let i = 1; i < column.value.length; i++) if (column.value[i] < column.value[index]) index = i;
  return { index, step: column.step[index], value: column.value[index] };
}

/** Where overfitting begins: the lowest point, if the last value is more than 1 % higher, as in the report; else null. */
export function overfittingStart(column) {
  const best = lowest(column);
  if (!best) return null;
  return column.value.at(-1) > 1.01 * best.value ? best : null;
}

/** The samples of the last step at or before `step`, or else of the first one. */
export function samplesAt(samples, step) {
  const steps = sampleSteps(samples);
  if (!steps.length) return [];
  const shown = steps[Math.max(0, indexAtOrBefore(steps, step))];
  return samples.filter((sample) => sample.step === shown);
}

/** The steps that have samples, ascending. */
export function sampleSteps(samples) {
  return [...new Set(samples.map((sample) => sample.step))].sort((a, b) => a - b);
}

/** At most `limit` indices from 0 to count - 1, evenly spaced, the first and the last among them. */
export function evenlySpaced(count, limit) {
  if (count <= limit) return Array.from({ length: count }, (_, index) => index);
  return Array.from({ length: limit }, (_, index) => Math.round((index * (count - 1)) / (limit - 1)));
}
