// A text as tokens: what is shown of them, whatever they are colored by.

import { MEASURES, differenceLevel, startsWindow } from "./scales.js";

const BLOCK = 200; // tokens, of which the browser lays out only those blocks that are seen

/** The tokens of an inspection as spans: {text, className, label}, the first one without a value. */
export function inspectedSpans(reply, measureName) {
  const measure = MEASURES[measureName];
  const first = { text: reply.first.text, className: "", label: `${reply.first.text}: not predicted` };
  const scored = reply.tokens.map((token, index) => {
    const value = measure.value(token);
    const window = startsWindow(index, reply.context, reply.stride) ? " window" : "";
    return {
      text: token.text,
      className: `heat-${measure.level(value)}${window}`,
      label: `${token.text}: ${measure.label} ${valueText(value, measureName)}${window ? ", start of a window" : ""}`,
    };
  });
  return [first, ...scored];
}

/** The parts of a comparison as spans; the text before the first part has no value. */
export function comparedSpans(reply) {
  const parts = reply.parts.map((part) => {
    const level = differenceLevel(Number(part.difference));
    const name = level === 0 ? "" : level < 0 ? `better-${-level}` : `worse-${level}`;
    return { text: part.text, className: name, label: `${part.text}: ${signed(Number(part.difference))} nats` };
  });
  return [{ text: reply.before, className: "", label: `${reply.before}: not predicted` }, ...parts];
}

/** Spans in blocks that end at line ends: [{start, spans}], `start` being the number of the first span. */
export function blocksOf(spans, size = BLOCK) {
  const blocks = [];
  let start = 0;
  for (let index = 0; index < spans.length; index += 1) {
    const isLong = index - start + 1 >= size && spans[index].text.endsWith("\n");
    if (isLong || index === spans.length - 1) {
      blocks.push({ start, spans: spans.slice(start, index + 1) });
      start = index + 1;
    }
  }
  return blocks;
}

/** A value of a measure: a rank is whole, others are nats. */
export function valueText(value, measureName) {
  return measureName === "rank" ? value.toLocaleString("en") : `${value.toFixed(2).replace("-", "−")} nats`;
}

/** A number with its sign, the minus as long as the plus. */
export function signed(value, decimals = 2) {
  const text = Math.abs(value).toFixed(decimals);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

/** Text with visible line ends and tabs. */
export function displayed(text) {
  return text.replaceAll("\r", "␍").replaceAll("\n", "↵\n").replaceAll("\t", "→\t");
}
