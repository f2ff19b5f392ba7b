// Lines over one axis with one cursor, drawn by uPlot.

import uPlot from "./vendor/uplot-1.6.32/uPlot.esm.js";
import { compact, duration, fixed } from "./format.js";
import { interpolated } from "./series.js";

const FONT = "12px system-ui, sans-serif";
const MOST_TICKS = 8; // of a logarithmic axis, above which only round values are written
const MARGIN = 0.05; // above and below the lines, as a share of their range

/**
 * A chart in an element. What it draws is one object:
 * lines: [{label, xs, ys, low, high, color, width}], of which low and high may be null;
 * baselines: [{label, value}], marks: [{label, x, y, color}]; axis: {label, isTime}; isLog; range: [low, high] or null;
 * colors: {ink, soft, line, card}.
 */
export class Curves {
  #host;
  #plot = null;
  #signature = "";
  #drawing = null;
  #at = null;
  #onCursor;
  #onRange;
  #resizing;

  constructor(host, { onCursor, onRange }) {
    this.#host = host;
    this.#onCursor = onCursor;
    this.#onRange = onRange;
    this.#resizing = new ResizeObserver(() => this.#plot?.setSize(this.#size()));
    this.#resizing.observe(host);
  }

  /** The positions of all points, ascending. */
  get positions() {
    return this.#plot?.data[0] ?? [];
  }

  draw(drawing) {
    if (drawing === this.#drawing) return;
    this.#drawing = drawing;
    const data = aligned(drawing.lines, drawing.isLog);
    const signature = JSON.stringify([
      drawing.lines.map((line) => [line.label, line.color, line.width, line.low !== null]),
      [drawing.isLog, drawing.axis, drawing.colors],
    ]);
    if (signature !== this.#signature) {
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(), data, this.#host);
      this.#signature = signature;
      this.#listen();
    } else {
      this.#plot.setData(data, false);
    }
    const [min, max] = drawing.range ?? extent(data[0]);
    this.#plot.setScale("x", { min, max });
    this.setCursor(this.#at);
  }

  /** Show the cursor at a position; null hides it. */
  setCursor(x) {
    this.#at = x;
    queueMicrotask(() => this.#placeCursor()); // uPlot changes its scales in a microtask
  }

  destroy() {
    this.#resizing.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
  }

  #placeCursor() {
    const plot = this.#plot;
    if (!plot) return;
    const left = this.#at === null ? -10 : plot.valToPos(this.#at, "x");
    const isVisible = left >= 0 && left <= plot.over.clientWidth;
    plot.setCursor({ left: isVisible ? left : -10, top: isVisible ? plot.over.clientHeight / 2 : -10 }, false);
  }

  #size() {
    return { width: this.#host.clientWidth, height: this.#host.clientHeight };
  }

  #listen() {
    const { over } = this.#plot;
    over.addEventListener("pointermove", (event) => {
      if (event.buttons && event.pointerType === "mouse") return; // a range is being selected
      const x = this.positions[this.#plot.posToIdx(event.offsetX)];
      if (x === undefined) return;
      this.#at = x;
      if (event.pointerType !== "mouse") this.setCursor(x);
      this.#onCursor(x);
    });
    over.addEventListener("mouseleave", () => this.setCursor(this.#at));
    over.addEventListener("dblclick", () => this.#onRange(null));
  }

  #options() {
    const { lines, axis, isLog, colors } = this.#drawing;
    const grid = { stroke: colors.line, width: 1 };
    const axisOptions = { stroke: colors.soft, font: FONT, grid, ticks: { ...grid, size: 4 } };
    const write = (value) => (axis.isTime ? duration(value) : compact(value));
    return {
      ...this.#size(),
      padding: [16, 16, 0, 0],
      legend: { show: false },
      cursor: {
        hover: { bias: -1 }, // a line without a value at the cursor is marked at the one before, as it is listed
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { size: (plot, index) => (plot.series[index].isEdge ? 0 : 8) },
        bind: { dblclick: () => () => null },
      },
      scales: {
        x: { time: false },
        y: { distr: isLog ? 3 : 1, range: (plot, min, max) => this.#yRange(min, max) },
      },
      axes: [
        { ...axisOptions, values: (plot, splits) => splits.map(write), space: 72, size: 32 },
        {
          ...axisOptions,
          values: (plot, splits) => splits.map((split) => (split === null ? "" : short(split))),
          size: 56,
          ...(isLog ? { filter: (plot, splits) => (splits.length > MOST_TICKS ? splits.map(roundOnly) : splits) } : {}),
        },
      ],
      series: [{}, ...lines.flatMap(seriesOptions)],
      bands: bandsOf(lines),
      hooks: { draw: [() => this.#drawOver()], setSelect: [(plot) => this.#select(plot)] },
    };
  }

  #yRange(min, max) {
    const { baselines, isLog } = this.#drawing;
    const values = baselines.map((baseline) => baseline.value);
    if (Number.isFinite(min) && Number.isFinite(max)) values.push(min, max);
    const shown = isLog ? values.filter((value) => value > 0) : values;
    if (!shown.length) return isLog ? [0.1, 10] : [0, 1];
    const [low, high] = [Math.min(...shown), Math.max(...shown)];
    if (isLog) return [low / (1 + 2 * MARGIN), high * (1 + 2 * MARGIN)];
    const space = MARGIN * (high - low || Math.abs(high) || 1);
    return [low >= 0 ? Math.max(0, low - space) : low - space, high + space];
  }

  #select(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const range = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#onRange(range);
  }

  #drawOver() {
    const plot = this.#plot;
    if (!plot) return; // the first time, uPlot draws while it is created
    const { ctx, bbox } = plot;
    const { lines, baselines, marks, colors } = this.#drawing;
    const edge = 8 * uPlot.pxRatio; // for marks at the first and the last point
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - edge, bbox.top, bbox.width + 2 * edge, bbox.height);
    ctx.clip();
    ctx.font = FONT.replace("12px", `${12 * uPlot.pxRatio}px`);
    drawBaselines(plot, baselines, lines, colors);
    for (const mark of marks) drawMark(plot, mark, colors);
    ctx.restore();
  }
}

/** The lines over all their positions; with a logarithmic scale, values that are not positive are left out. */
export function aligned(lines, isLog) {
  const tables = lines.map(({ xs, ys, low, high }) => {
    const columns = low ? [ys, low, high] : [ys];
    return [xs, ...columns.map((column) => (isLog ? column.map((value) => (value > 0 ? value : null)) : column))];
  });
  return tables.length ? uPlot.join(tables) : [[]];
}

function extent(positions) {
  if (!positions.length) return [0, 1];
  const [first, last] = [positions[0], positions.at(-1)];
  return first === last ? [first - 1, last + 1] : [first, last];
}

function short(value) {
  return Math.abs(value) >= 1000 ? compact(value) : String(Number(value.toPrecision(4)));
}

/** Of the values of a logarithmic axis, those that begin with 1, 2 or 5. */
function roundOnly(value) {
  return value !== null && /^[125]e/.test(value.toExponential(0)) ? value : null;
}

function seriesOptions(line) {
  const options = {
    label: line.label,
    stroke: line.color,
    width: line.width,
    spanGaps: true,
    points: { show: line.xs.length === 1, size: 6, fill: line.color },
  };
  const edge = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false }, isEdge: true };
  return line.low ? [options, edge, edge] : [options];
}

function bandsOf(lines) {
  const bands = [];
  let index = 1;
  for (const line of lines) {
    if (line.low) bands.push({ series: [index + 2, index + 1], fill: `${line.color}40` });
    index += line.low ? 3 : 1;
  }
  return bands;
}

function drawBaselines(plot, baselines, lines, colors) {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  const edge = bbox.left + bbox.width - 4 * ratio;
  let previous = { y: Infinity, left: edge };
  ctx.textAlign = "right";
  for (const { label, value } of [...baselines].sort((a, b) => a.value - b.value)) {
    const y = plot.valToPos(value, "y", true);
    ctx.setLineDash([2 * ratio, 4 * ratio]);
    ctx.strokeStyle = colors.soft;
    ctx.lineWidth = ratio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    const text = `${label} ${fixed(value, 2)}`;
    // Labels of lines that are close together stand side by side.
    const right = Math.abs(previous.y - y) < 16 * ratio ? previous.left - 16 * ratio : edge;
    const left = right - ctx.measureText(text).width;
    const [above, below] = [-1, 1].map((side) => crossings(plot, lines, [left, right], [y, y + side * 16 * ratio]));
    ctx.textBaseline = below < above ? "top" : "bottom";
    writeText(ctx, text, right, y + (below < above ? 2 : -2) * ratio, { color: colors.soft, ground: colors.card });
    previous = { y, left };
  }
}

function drawMark(plot, mark, colors) {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  const [x, y] = [plot.valToPos(mark.x, "x", true), plot.valToPos(mark.y, "y", true)];
  if (x < bbox.left || x > bbox.left + bbox.width) return;
  ctx.setLineDash([]);
  ctx.strokeStyle = mark.color;
  ctx.lineWidth = 2 * ratio;
  ctx.beginPath();
  ctx.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
  ctx.stroke();
  if (!mark.label) return;
  const isLeft = x + 12 * ratio + ctx.measureText(mark.label).width > bbox.left + bbox.width;
  ctx.textAlign = isLeft ? "right" : "left";
  ctx.textBaseline = "top";
  writeText(ctx, mark.label, x + (isLeft ? -10 : 10) * ratio, y + 8 * ratio, { color: colors.ink, ground: colors.card });
}

/** At how many of some places in a box lines pass through it; the box is in pixels of the canvas. */
function crossings(plot, lines, [left, right], ys) {
  let count = 0;
  for (let x = left; x <= right; x += (right - left) / 8) {
    const position = plot.posToVal((x - plot.bbox.left) / uPlot.pxRatio, "x");
    for (const line of lines) {
      const y = plot.valToPos(interpolated(line.xs, line.ys, position), "y", true);
      if (y >= Math.min(...ys) && y <= Math.max(...ys)) count += 1;
    }
  }
  return count;
}

/** Text that can be read where it crosses a line: with an edge in the color of the ground. */
function writeText(ctx, text, x, y, { color, ground }) {
  ctx.setLineDash([]);
  ctx.lineJoin = "round";
  ctx.lineWidth = 4 * uPlot.pxRatio;
  ctx.strokeStyle = ground;
  ctx.strokeText(text, x, y);
  ctx.fillStyle = color;
  ctx.fillText(text, x, y);
}
