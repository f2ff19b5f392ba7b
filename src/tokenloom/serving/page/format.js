// Numbers and times as text.

const COMPACT = [[1e9, "B"], [1e6, "M"], [1e3, "k"]];
const BYTES = { "": "B", k: "kB", M: "MB", B: "GB" };

/** At most four digits: 950, 1.2k, 13.4M. */
export function compact(value) {
  if (!Number.isFinite(value)) return String(value);
  for (const [size, letter] of COMPACT) {
    if (Math.abs(value) >= 0.9995 * size) {
      const scaled = value / size;
      return `${Number(scaled.toFixed(Math.abs(scaled) < 99.95 ? 1 : 0))}${letter}`;
    }
  }
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

/** A whole number with separators. */
export function whole(value) {
  return Math.round(value).toLocaleString("en");
}

/** A value with a number of decimals; "–" if it is not known. */
export function fixed(value, decimals = 3) {
  if (value == null) return "–";
  const number = Number(value);
  const text = Number.isFinite(number) ? number.toFixed(decimals) : String(number).replace("Infinity", "∞");
  return text.replace("-", "−"); // as long as a plus
}

/** A time in its two largest units: 45 s, 4 min 3 s, 2 h 5 min. */
export function duration(seconds) {
  if (seconds == null) return "–";
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  const units = total < 3600 ? [[60, "min"], [1, "s"]] : total < 86400 ? [[3600, "h"], [60, "min"]] : [[86400, "d"], [3600, "h"]];
  const [[large, name], [small, smallName]] = units;
  const rest = Math.floor((total % large) / small);
  return `${Math.floor(total / large)} ${name}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** A probability in percent: 34.5 %, 0.02 %, < 0.01 %. */
export function percent(probability) {
  const value = 100 * probability;
  if (value === 0) return "0 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value >= 10 ? value.toFixed(1) : value.toFixed(2)} %`;
}

/** A token with visible white space. */
export function visibleToken(text) {
  return text.replaceAll("\n", "↵").replaceAll("\r", "␍").replaceAll("\t", "→").replace(/^ /, "␣") || "∅";
}

/** A number of bytes: 950 B, 13.4 MB. */
export function bytes(value) {
  return `${compact(value).replace(/[kMB]?$/, (letter) => ` ${BYTES[letter]}`)}`;
}

/** How long ago a time was, in its largest unit: "just now", "4 min ago". */
export function ago(seconds) {
  return seconds < 5 ? "just now" : `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

/** A count with its noun: 1 run, 3 runs. */
export function counted(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}
