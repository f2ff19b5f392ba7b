// The colors of the style sheet, for what is drawn without it.

const RUN_COLORS = 8;

const NAMES = ["train", "val", "ink", "soft", "line", "card"];

/** The colors of the current theme: {train, val, ink, soft, line, card, runs}. */
export function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const runs = Array.from({ length: RUN_COLORS }, (_, index) => color(`run-${index}`));
  return { ...Object.fromEntries(NAMES.map((name) => [name, color(name)])), runs };
}

/** Call `work` when the system changes between light and dark; returns what ends this. */
export function onThemeChange(work) {
  const query = matchMedia("(prefers-color-scheme: dark)");
  query.addEventListener("change", work);
  return () => query.removeEventListener("change", work);
}
