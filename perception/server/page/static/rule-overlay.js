// Lines and zones drawn over a picture, with what they say; while they are edited, with handles. The server draws the
// same into its own pictures, see perception/drawing/readings.py.

import { strokes } from "./geometry.js";
import { middles, tick, toScreen } from "./shapes.js";

const REST = "#00c8ff"; // the colours that the server has
const ACTIVE = "#ffc800";
const WRONG = "#ff6b6b";
const SHADOW = "rgb(24 24 24 / 0.85)";

/**
 * Draw shapes: [{kind: "lines" | "zones", points, text, active, wrong, handles}], the last one on top.
 *
 * @param context 2D context, drawn upon.
 * @param mirror whether the picture is mirrored; texts are not.
 * @param scale pixels of the canvas for one of the screen, for handles.
 */
export function drawRules(context, shapes, mirror, scale = 1) {
  const screen = { width: context.canvas.width, height: context.canvas.height, mirror };
  const { line, text } = strokes(screen.width, screen.height);
  context.lineJoin = "round";
  context.lineCap = "round";
  for (const shape of shapes) {
    const color = shape.wrong ? WRONG : shape.active ? ACTIVE : REST;
    const points = shape.points.map((point) => toScreen(point, screen));
    const closed = shape.kind === "zones" && !shape.open;
    if (closed && points.length > 2) fill(context, points, color, shape.handles ? 0.22 : 0.12);
    stroke(context, points, closed, line, color);
    if (shape.kind === "lines" && points.length === 2) stroke(context, tick(shape.points, screen, 12 * line), false, line, color);
    if (shape.handles) drawHandles(context, shape, screen, color, scale);
  }
  context.font = `600 ${text}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const shape of shapes) if (shape.text) write(context, shape, screen, text);
}

function path(context, points, closed) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

function fill(context, points, color, alpha) {
  path(context, points, true);
  context.globalAlpha = alpha;
  context.fillStyle = color;
  context.fill();
  context.globalAlpha = 1;
}

function stroke(context, points, closed, width, color) {
  path(context, points, closed);
  for (const [wide, style] of [[width + 3, SHADOW], [width, color]]) {
    context.lineWidth = wide;
    context.strokeStyle = style;
    context.stroke();
  }
}

function drawHandles(context, { kind, points, open }, screen, color, scale) {
  const corners = kind === "zones" && !open ? middles(points) : [];
  for (const [places, radius] of [[corners, 4], [points, 7]])
    for (const place of places) {
      const [x, y] = toScreen(place, screen);
      context.beginPath();
      context.arc(x, y, radius * scale, 0, 2 * Math.PI);
      context.fillStyle = radius === 7 ? "#fff" : color;
      context.fill();
      context.lineWidth = 2 * scale;
      context.strokeStyle = radius === 7 ? "#0f172a" : SHADOW;
      context.stroke();
    }
}

/** A label at the middle of a shape, below a line. */
function write(context, { kind, points, text: words, active, wrong }, screen, text) {
  const places = points.map((point) => toScreen(point, screen));
  const middle = [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
  const [wide, high] = [context.measureText(words).width + text * 0.7, text * 1.45];
  const within = (at, size, most) => Math.max(Math.min(at, most - size), 0);
  const x = within(middle[0] - wide / 2, wide, screen.width);
  const y = within(middle[1] - high / 2 + (kind === "lines" ? high : 0), high, screen.height);
  context.fillStyle = wrong ? WRONG : active ? ACTIVE : REST;
  context.fillRect(x, y, wide, high);
  context.fillStyle = "#000";
  context.fillText(words, x + text * 0.35, y + high / 2);
}
