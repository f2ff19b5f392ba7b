// The state of a run in words, from its row in the table.

import { compact, counted, duration, fixed, whole } from "./format.js";

export const SIGNS = { training: "●", stale: "▲", finished: "✓", stopped: "■", diverged: "✕" };
const QUIET_SECONDS = 5;

/** One sentence about the state of a run, at a time in seconds since 1970. */
export function describe(row, now) {
  if (row.problem) return row.problem;
  const steps = `step ${whole(row.steps ?? 0)} of ${whole(row.max_steps ?? 0)}`;
  const age = row.changed == null ? null : now - row.changed;
  switch (row.state) {
    case "training": {
      const rate = row.tokens_per_sec ? `, ${compact(row.tokens_per_sec)} tokens/s` : "";
      const left = row.seconds_left == null ? "" : `, ${duration(row.seconds_left)} left`;
      const quiet = age > QUIET_SECONDS ? `; last record ${duration(age)} ago` : "";
      return row.steps ? `${steps}${rate}${left}${quiet}` : "preparing; there is no record yet";
    }
    case "stale":
      return `${steps}; the last record is ${duration(age)} old. The process may be suspended, or its computer.`;
    case "finished":
      return `finished after ${counted(row.steps ?? 0, "step")} in ${duration(row.seconds)}`;
    case "diverged":
      return `diverged at step ${whole(row.steps ?? 0)}: its loss or gradient is not finite. A lower learning rate may help.`;
    default:
      return `stopped at ${steps}. It can be resumed:`;
  }
}

/** The command that continues a run; null if it trains or has finished. */
export function resumeCommand(row) {
  return row.state === "stopped" && row.path && !row.problem ? `tokenloom train --resume ${shellWord(row.path)}` : null;
}

/** A word as a POSIX shell reads it. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

/** The figures of a row as text, in the order of the table. */
export function figuresOf(row) {
  return {
    step: row.steps == null ? "–" : whole(row.steps),
    train: fixed(row.train_loss),
    val: fixed(row.val_loss),
    best: fixed(row.best_val_loss),
    bits: fixed(row.val_bits_per_byte, 2),
    rate: row.tokens_per_sec == null ? "–" : compact(row.tokens_per_sec),
    parameters: row.parameters == null ? "–" : compact(row.parameters),
    time: duration(row.seconds),
  };
}

/** A setting as it is written in a configuration. */
export function settingText(value) {
  if (value == null) return "none";
  return Array.isArray(value) ? value.join(", ") : String(value);
}
