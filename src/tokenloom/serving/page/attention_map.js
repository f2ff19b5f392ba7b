// Attention weights as pictures: a row of cells for each token, in one hue.

/** Draw rows of weights from 0 to 1 into a canvas, one pixel for a cell; the color is that of the style sheet. */
export function paintMap(canvas, rows) {
  const size = rows.length;
  const context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [size, size];
  context.fillStyle = getComputedStyle(canvas).getPropertyValue("--heat").trim();
  rows.forEach((row, y) => {
    row.forEach((weight, x) => {
      context.globalAlpha = Math.sqrt(weight);
      context.fillRect(x, y, 1, 1);
    });
  });
}

/** Draw those canvases in an element whose rows are other ones than before; `rowsOf` gives the rows of a canvas. */
export class PaintedMaps {
  #painted = new WeakMap();

  paint(host, rowsOf) {
    for (const canvas of host.querySelectorAll("canvas.map")) {
      const rows = rowsOf(canvas);
      if (!rows || this.#painted.get(canvas) === rows) continue;
      paintMap(canvas, rows);
      this.#painted.set(canvas, rows);
    }
  }
}
