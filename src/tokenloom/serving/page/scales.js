// Colors of tokens: fixed scales, so that they can be compared between texts and checkpoints.

export const HEAT_LEVELS = 12;
const LARGEST_RANK = 4096; // of which the logarithm is 12 halvings

/** What a token can be colored by: its value, the level from 0 to 12, and how the value is written. */
export const MEASURES = {
  nats: {
    label: "loss",
    unit: "nats",
    explanation: "how unexpected the token was: the negative logarithm of its probability",
    value: (token) => -Number(token.log_probability),
    level: (value) => heatLevel(value),
    ends: ["0", "12 nats or more"],
  },
  rank: {
    label: "rank",
    unit: "",
    explanation: "1 if no token was more likely",
    value: (token) => token.rank,
    level: (value) => heatLevel((HEAT_LEVELS * Math.log2(value)) / Math.log2(LARGEST_RANK)),
    ends: ["1", "4,096 or more"],
  },
  entropy: {
    label: "entropy",
    unit: "nats",
    explanation: "how uncertain the model was before the token",
    value: (token) => Number(token.entropy),
    level: (value) => heatLevel(value),
    ends: ["0", "12 nats or more"],
  },
  surprise: {
    label: "loss − entropy",
    unit: "nats",
    explanation: "how much more unexpected the token was than the model expected",
    value: (token) => -Number(token.log_probability) - Number(token.entropy),
    level: (value) => heatLevel(value),
    ends: ["0 or less", "12 nats or more"],
  },
};

/** The level of nats: one for each nat, from 0 to 12. */
export function heatLevel(nats) {
  return Number.isNaN(nats) ? HEAT_LEVELS : Math.round(Math.min(HEAT_LEVELS, Math.max(0, nats)));
}

const DIFFERENCES = [0.1, 0.5, 1, 2, 4]; // the lowest of each level, in nats

/** The level of a difference in nats, B minus A: negative where B is better, 0 for less than 0.1 nats, at most 5. */
export function differenceLevel(nats) {
  if (Number.isNaN(nats)) return 0;
  const level = DIFFERENCES.filter((lowest) => Math.abs(nats) >= lowest).length;
  return nats < 0 ? 0 - level : level; // without a zero that has a sign
}

/** Whether a window begins before a scored token, so that it has only one token of context. */
export function startsWindow(index, context, stride) {
  return stride === context && index > 0 && index % stride === 0;
}
