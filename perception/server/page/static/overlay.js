// Results drawn over a picture: class colours, boxes, labels. The canvas may have any size; boxes scale with it.

import { classColors, rgb, textColor } from "./colors.js";
import { boxOnCanvas, labelPlaces, outline, strokes } from "./geometry.js";
import { paintRuns } from "./message.js";

/** Draws results of one model; keeps the class map of the last one as a small picture. */
export class Overlay {
  constructor(map = document.createElement("canvas")) {
    this.map = map;
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
    const { mapWidth: width, mapHeight: height } = result;
    if (this.map.width !== width || this.map.height !== height) Object.assign(this.map, { width, height });
    const context = this.map.getContext("2d");
    const image = context.createImageData(width, height);
    paintRuns(result.runs, classColors(model, hidden), new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
    this.mapFor = { result, key };
  }

  drawBoxes(context, result, model, { mirror, labels, hidden }) {
    const { canvas } = context;
    const { line, text } = strokes(canvas.width, canvas.height);
    context.lineWidth = line;
    context.font = `600 ${text}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const shown = [];
    for (let i = 0; i < result.scores.length; i++) {
      const { name, color } = model.detection[result.classIds[i]];
      if (hidden.has(name)) continue;
      const box = boxOnCanvas(result.boxes.subarray(4 * i, 4 * i + 4), result, canvas, mirror);
      const track = result.trackIds?.length ? `#${result.trackIds[i]} ` : "";
      shown.push({ box, color, words: `${track}${name} ${Math.round(100 * result.scores[i])}%` });
    }
    for (const { box, color } of [...shown].reverse()) {
      context.strokeStyle = rgb(color);
      context.strokeRect(...outline(box, line));
    }
    if (!labels) return;
    for (const label of shown) label.size = [context.measureText(label.words).width + text * 0.7, text * 1.45];
    labelPlaces(shown, canvas).forEach((place, i) => {
      if (!place) return;
      const { color, words, size: [wide, high] } = shown[i];
      const [x, y] = place;
      context.fillStyle = rgb(color);
      context.fillRect(x, y, wide, high);
      context.fillStyle = textColor(color);
      context.fillText(words, x + text * 0.35, y + high / 2);
    });
  }

  drawLabels(context, result, model) {
    const { width, height } = context.canvas;
    const { text } = strokes(width, height);
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
