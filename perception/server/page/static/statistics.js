// Live statistics: rate, latency, drops, and how they went over the last minute.

const KEPT_S = 60;
const RATE_S = 2;

/** The value below which a part (0..1) of the values lies; NaN where there is none. */
export function percentile(values, part) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(Math.floor(part * sorted.length), sorted.length - 1)];
}

/** Counts results as they come; the plot has one point for each second. */
export class StreamStatistics {
  constructor() {
    this.clear();
  }

  clear() {
    this.results = []; // {at, latency, server, infer}, milliseconds, of the last minute
    this.points = []; // {fps, latency}
    this.dropped = 0;
    this.total = 0;
  }

  /** One result: at (performance.now()), latency from camera picture to drawing, and the server's own timings. */
  add(at, latency, timings) {
    this.total += 1;
    this.results.push({ at, latency, ...timings });
    while (this.results.length && this.results[0].at < at - 1000 * KEPT_S) this.results.shift();
  }

  /** {fps, p50, p95, dropped} over the last seconds; milliseconds. */
  now(at = performance.now()) {
    const recent = this.results.filter((r) => r.at > at - 1000 * RATE_S);
    const latest = this.results.filter((r) => r.at > at - 5000).map((r) => r.latency);
    const span = recent.length > 1 ? recent.at(-1).at - recent[0].at : 0;
    return {
      fps: span > 0 ? (1000 * (recent.length - 1)) / span : 0,
      p50: percentile(latest, 0.5),
      p95: percentile(latest, 0.95),
      dropped: this.dropped,
    };
  }

  /** Add a point to the plot, once a second. */
  point({ fps, p50 }) {
    this.points.push({ fps: fps || 0, latency: p50 || 0 });
    if (this.points.length > KEPT_S) this.points.shift();
  }
}

/** An empty canvas in the screen's own pixels, ready for a plot: {context, width, height, scale, style}; null where it is not shown. */
export function cleared(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (!width || !height) return null;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, scale, style: getComputedStyle(canvas) };
}

/** Two lines over the last minute, each scaled to its own maximum, the newest at the right. */
export function drawPlot(canvas, points) {
  const plot = cleared(canvas);
  if (!plot) return;
  const { context, width, height, scale, style } = plot;
  const margin = 3 * scale;
  for (const [name, color] of [
    ["fps", style.getPropertyValue("--pv-fps")],
    ["latency", style.getPropertyValue("--pv-latency")],
  ]) {
    const top = Math.max(...points.map((p) => p[name]), 1) * 1.1;
    context.beginPath();
    points.forEach((p, i) => {
      const x = width - margin - ((points.length - 1 - i) * (width - 2 * margin)) / (KEPT_S - 1);
      const y = height - margin - (p[name] / top) * (height - 2 * margin);
      i ? context.lineTo(x, y) : context.moveTo(x, y);
    });
    context.strokeStyle = color || "#888";
    context.lineWidth = 1.75 * scale;
    context.lineJoin = "round";
    context.stroke();
  }
}
