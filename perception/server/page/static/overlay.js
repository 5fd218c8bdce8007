// Results drawn over a picture: class colours, boxes, labels. The canvas may have any size; boxes scale with it.

import { paintRuns } from "./message.js";

/** Black or white, whichever reads better on an RGB colour (ITU-R BT.709 luminance). */
export function textColor([r, g, b]) {
  const linear = (c) => (c / 255) ** 2.2;
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.18 ? "#000" : "#fff";
}

export const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** Draws results of one model; keeps the class map of the last one as a small picture. */
export class Overlay {
  constructor() {
    this.map = document.createElement("canvas");
    this.mapFor = null; // the result and the colours that the small picture was made of
  }

  /**
   * Draw a result.
   *
   * @param context 2D context, drawn upon.
   * @param result from unpack(), or null: nothing is drawn.
   * @param model the "ready" message of the socket.
   * @param options {masks, boxes, labels, opacity, mirror, hidden: Set of class names}
   */
  draw(context, result, model, options) {
    if (!result || !model) return;
    const { width, height } = context.canvas;
    if (options.masks && result.mapWidth && options.opacity > 0) {
      this.paintMap(result, model, options.hidden);
      context.save();
      if (options.mirror) {
        context.translate(width, 0);
        context.scale(-1, 1);
      }
      context.globalAlpha = options.opacity;
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "low";
      context.drawImage(this.map, 0, 0, width, height);
      context.restore();
    }
    if (options.boxes) this.drawBoxes(context, result, model, options);
    if (options.labels && result.labelIds.length) this.drawLabels(context, result, model);
  }

  /** The class map as a picture of its own size, opaque where a class is shown and clear elsewhere. */
  paintMap(result, model, hidden) {
    const key = [...hidden].sort().join("\n");
    if (this.mapFor?.result === result && this.mapFor.key === key) return;
    const colors = new Uint32Array(256);
    model.segmentation.forEach(({ name, color: [r, g, b] }, i) => {
      if (!hidden.has(name) && !model.ignored.includes(i)) colors[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    });
    const { mapWidth: width, mapHeight: height } = result;
    if (this.map.width !== width || this.map.height !== height) Object.assign(this.map, { width, height });
    const context = this.map.getContext("2d");
    const image = context.createImageData(width, height);
    paintRuns(result.runs, colors, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
    this.mapFor = { result, key };
  }

  drawBoxes(context, result, model, { mirror, labels, hidden }) {
    const { width, height } = context.canvas;
    const [sx, sy] = [width / result.width, height / result.height];
    const line = Math.max(Math.round(Math.min(width, height) / 240), 2);
    const text = Math.max(Math.round(Math.min(width, height) / 34), 11);
    context.lineWidth = line;
    context.font = `600 ${text}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (let i = result.scores.length - 1; i >= 0; i--) {
      const { name, color } = model.detection[result.classIds[i]];
      if (hidden.has(name)) continue;
      let [x0, y0, x1, y1] = result.boxes.subarray(4 * i, 4 * i + 4);
      [x0, x1, y0, y1] = [x0 * sx, x1 * sx, y0 * sy, y1 * sy];
      if (mirror) [x0, x1] = [width - x1, width - x0];
      context.strokeStyle = rgb(color);
      context.strokeRect(x0 + line / 2, y0 + line / 2, Math.max(x1 - x0 - line, 1), Math.max(y1 - y0 - line, 1));
      if (!labels) continue;
      const words = `${name} ${Math.round(100 * result.scores[i])}%`;
      const [wide, high] = [context.measureText(words).width + text * 0.7, text * 1.45];
      const x = Math.min(Math.max(x0, 0), Math.max(width - wide, 0));
      const y = y0 >= high ? y0 - high : Math.max(y0, 0);
      context.fillStyle = rgb(color);
      context.fillRect(x, y, wide, high);
      context.fillStyle = textColor(color);
      context.fillText(words, x + text * 0.35, y + high / 2);
    }
  }

  drawLabels(context, result, model) {
    const { width, height } = context.canvas;
    const text = Math.max(Math.round(Math.min(width, height) / 34), 11);
    context.font = `600 ${text}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const count = result.labelIds.length;
    for (let i = 0; i < count; i++) {
      const words = `${model.classification[result.labelIds[i]].name} ${Math.round(100 * result.labelScores[i])}%`;
      const y = height - (count - i) * text * 1.45;
      context.fillStyle = "rgb(20 20 20 / 0.75)";
      context.fillRect(0, y, context.measureText(words).width + text * 0.7, text * 1.45);
      context.fillStyle = "#fff";
      context.fillText(words, text * 0.35, y + text * 0.72);
    }
  }
}
