// What the chart of some runs shows: lines, baselines and marks, from their columns.

import { AXES, lowest, overfittingStart } from "./series.js";
import { whole } from "./format.js";

export const MOST_RUNS = 8; // as many as the server compares

/** The charts by their names in the address: which metrics, and with what they are compared. */
export const CHARTS = {
  loss: {
    label: "Loss",
    unit: "nats per token",
    lines: { "train/loss": "training", "val/loss": "validation" },
    baselines: { unigram: "unigram_nats_per_token" },
    marked: "val/loss",
  },
  bits: {
    label: "Bits per byte",
    unit: "of the validation text",
    lines: { "val/bits_per_byte": "validation" },
    baselines: { unigram: "unigram_bits_per_byte", xz: "xz_bits_per_byte", zstd: "zstd_bits_per_byte" },
    marked: "val/bits_per_byte",
  },
  rate: { label: "Throughput", unit: "tokens per second", lines: { tokens_per_sec: "tokens/s" } },
  lr: { label: "Learning rate", unit: "", lines: { lr: "AdamW", muon_lr: "Muon" } },
  norm: { label: "Gradient norm", unit: "before clipping", lines: { grad_norm: "gradient norm" } },
};

/** The values that the readout lists: key, label, and decimals (null: in short). */
export const READOUT = [
  ["train/loss", "training loss", 3],
  ["val/loss", "validation loss", 3],
  ["val/bits_per_byte", "bits per byte", 3],
  ["lr", "learning rate", null],
  ["muon_lr", "rate of Muon", null],
  ["grad_norm", "gradient norm", 3],
  ["tokens_per_sec", "tokens/s", 0],
];

/** The metrics that are drawn or listed. */
export const SHOWN = [
  ...new Set([...Object.values(CHARTS).flatMap(({ lines }) => Object.keys(lines)), ...READOUT.map(([key]) => key)]),
];

/**
 * The drawing of `Curves` for runs: [{id, columns, baselines}], with columns by key, or null while they are loaded.
 * `palette`: {train, val, runs: [color of each run], ink, soft, line, card}.
 */
export function drawingOf(runs, { chart, axis, isLog, range, hasBaselines, palette }) {
  const loaded = runs.filter((run) => run.columns);
  const isOne = runs.length === 1;
  const { lines, baselines = {}, marked } = CHARTS[chart];
  const keys = Object.keys(lines);
  return {
    lines: loaded.flatMap((run) =>
      keys
        .filter((key) => run.columns.get(key)?.value.length)
        .map((key) => lineOf(run, key, { chart, axis, isOne, palette, isLast: key === keys.at(-1) })),
    ),
    baselines: hasBaselines && loaded.length ? baselinesOf(loaded, baselines) : [],
    marks: marked ? loaded.flatMap((run) => marksOf(run, marked, { axis, isOne, palette })) : [],
    axis: { label: AXES[axis].label, isTime: axis === "seconds" },
    isLog,
    range,
    colors: { ink: palette.ink, soft: palette.soft, line: palette.line, card: palette.card },
  };
}

function lineOf(run, key, { chart, axis, isOne, palette, isLast }) {
  const column = run.columns.get(key);
  const own = isLast && chart !== "rate" && chart !== "norm" ? palette.val : palette.train;
  return {
    label: isOne ? CHARTS[chart].lines[key] : `${run.id}, ${CHARTS[chart].lines[key]}`,
    xs: column[axis],
    ys: column.value,
    low: column.low,
    high: column.high,
    color: isOne ? own : run.color,
    width: isLast ? 2 : 1,
  };
}

/** The baselines that are the same for all runs: those of other texts cannot be compared. */
function baselinesOf(runs, wanted) {
  return Object.entries(wanted)
    .map(([label, key]) => ({ label, value: runs[0].baselines?.[key], key }))
    .filter(({ value, key }) => typeof value === "number" && runs.every((run) => run.baselines?.[key] === value))
    .map(({ label, value }) => ({ label, value }));
}

function marksOf(run, key, { axis, isOne, palette }) {
  const column = run.columns.get(key);
  const best = lowest(column);
  if (!best) return [];
  const begins = isOne && overfittingStart(column);
  const label = begins ? `overfitting begins, step ${whole(best.step)}` : "";
  return [{ x: column[axis][best.index], y: best.value, label, color: isOne ? palette.val : run.color }];
}

/** The longest column of a run, by which steps and positions on the axis are converted; null without points. */
export function longestColumn(columns) {
  let longest = null;
  for (const column of columns?.values() ?? []) {
    if (column.step.length > (longest?.step.length ?? 0)) longest = column;
  }
  return longest;
}

/** Sentences about values that are not finite, one for each metric that has some. */
export function nonFiniteNotes(columns, labels) {
  const notes = [];
  for (const [key, column] of columns ?? []) {
    if (!column.nonFinite.length || !(key in labels)) continue;
    const steps = column.nonFinite.slice(0, 3).map(({ step, value }) => `${value} at step ${whole(step)}`);
    const more = column.nonFinite.length > 3 ? ` and ${whole(column.nonFinite.length - 3)} more` : "";
    notes.push(`${labels[key]} is not finite: ${steps.join(", ")}${more}.`);
  }
  return notes;
}

/** A range such as "100~250" in the address; null if it is none. */
export function parseRange(text) {
  const [low, high] = (text ?? "").split("~").map(Number);
  return Number.isFinite(low) && Number.isFinite(high) && low < high ? [low, high] : null;
}

/** A range as the address has it. */
export function formatRange(range) {
  return range && range.map((value) => Number(value.toPrecision(6))).join("~");
}
