// What rules said over time: a plot of the last minutes, and a table by minute with the columns of --summary.

import { cleared } from "./statistics.js";

const BUCKET_MS = 5000;
const BUCKETS = 60; // of the plot: five minutes
const MINUTE_MS = 60_000;
const MINUTES = 1440; // that are kept for the table: a day
const GAP_MS = 10_000; // a longer time without numbers counts as this

const COLUMNS = ["source", "start", "rule", "kind", "class", "direction", "count", "mean", "max"];

/** Numbers that only grow, of what a rule says: [[kind, class, direction], count]. */
function counts({ crossed = {}, entered = {}, left = {} }) {
  const of = (kind, classes, direction = "") => Object.entries(classes).map(([name, count]) => [[kind, name, direction], count]);
  return [
    ...Object.entries(crossed).flatMap(([direction, classes]) => of("crossed", classes, direction)),
    ...of("entered", entered),
    ...of("left", left),
  ];
}

/** Numbers that go up and down: [kind, value], or nothing. */
function level({ inside, value }) {
  if (inside !== undefined) return ["inside", inside];
  return value === undefined ? null : ["value", value];
}

/** Takes what the rules say as it comes; memory is bounded by time. */
export class RuleHistory {
  constructor() {
    this.clear();
  }

  clear() {
    this.last = null; // {at, rules}
    this.plots = new Map(); // by rule: [{bucket, value}], the newest last
    this.minutes = []; // [{start, counts: Map, levels: Map, directions: Map}], the newest last
  }

  /** What all rules say at a time in milliseconds since 1970. */
  add(at, rules) {
    const last = this.last?.at > at ? null : this.last; // or the clock was set back
    const minute = this.minute(at);
    const gone = last ? Math.min(Math.max(at - last.at, 0), GAP_MS) : 0;
    for (const [name, numbers] of Object.entries(rules)) {
      let more = 0;
      // Of a rule that is there already at the first look, it is not known when it counted.
      const before = new Map((last ? counts(last.rules[name] ?? {}) : counts(numbers)).map(([key, count]) => [JSON.stringify(key), count]));
      for (const [key, count] of counts(numbers)) {
        const was = before.get(JSON.stringify(key)) ?? 0;
        const added = count < was ? count : count - was; // less, where it began anew
        if (!added) continue;
        const place = JSON.stringify([name, ...key]);
        minute.counts.set(place, (minute.counts.get(place) ?? 0) + added);
        if (key[0] === "crossed") more += added;
      }
      for (const direction of Object.keys(numbers.crossed ?? {})) minute.directions.set(JSON.stringify([name, direction]), true);
      const now = level(numbers);
      if (now) this.addLevel(minute, name, now, level(last?.rules[name] ?? {}), gone);
      this.addPlot(at, name, numbers.crossed ? more : now?.[1], Boolean(numbers.crossed));
    }
    for (const name of this.plots.keys()) if (!(name in rules)) this.plots.delete(name);
    this.last = { at, rules: structuredClone(rules) };
  }

  minute(at) {
    const start = Math.floor(at / MINUTE_MS) * MINUTE_MS;
    if (this.minutes.at(-1)?.start !== start) this.minutes.push({ start, counts: new Map(), levels: new Map(), directions: new Map() });
    if (this.minutes.length > MINUTES) this.minutes.shift();
    return this.minutes.at(-1);
  }

  addLevel(minute, name, [kind, value], before, gone) {
    const key = JSON.stringify([name, kind]);
    const known = minute.levels.get(key) ?? { sum: 0, ms: 0, max: 0, value };
    minute.levels.set(key, known);
    if (before) Object.assign(known, { sum: known.sum + before[1] * gone, ms: known.ms + gone });
    Object.assign(known, { max: Math.max(known.max, value), value });
  }

  addPlot(at, name, value, sums) {
    if (value === undefined) return;
    const bucket = Math.floor(at / BUCKET_MS);
    const points = this.plots.get(name) ?? [];
    this.plots.set(name, points);
    const last = points.at(-1);
    if (last?.bucket === bucket) last.value = sums ? last.value + value : Math.max(last.value, value);
    else points.push({ bucket, value });
    while (points[0].bucket <= bucket - BUCKETS) points.shift();
  }

  /** The last five minutes of a rule, oldest first: crossings in each five seconds, the most inside, or the share; null where there is nothing. */
  plot(name, at) {
    const now = Math.floor(at / BUCKET_MS);
    const values = Array(BUCKETS).fill(null);
    for (const { bucket, value } of this.plots.get(name) ?? []) if (now - bucket < BUCKETS && bucket <= now) values[BUCKETS - 1 - (now - bucket)] = value;
    return values;
  }

  /** Rows of the table, as --summary has them; the start of a minute is a time of the day, in UTC. */
  rows(source) {
    const made = [];
    for (const { start, counts: counted, levels, directions } of this.minutes) {
      const head = [source, new Date(start).toISOString().replace(".000", "")];
      const rows = [...counted].map(([place, count]) => [...head, ...JSON.parse(place), count, "", ""]);
      const gone = new Set(rows.map((row) => JSON.stringify([row[2], row[5]])));
      for (const place of directions.keys()) {
        const [rule, direction] = JSON.parse(place);
        if (!gone.has(place)) rows.push([...head, rule, "crossed", "", direction, 0, "", ""]);
      }
      for (const [place, { sum, ms, max, value }] of levels) {
        const [rule, kind] = JSON.parse(place);
        rows.push([...head, rule, kind, "", "", "", Math.round(1e6 * (ms ? sum / ms : value)) / 1e6, max]);
      }
      const order = (row) => JSON.stringify(row.slice(2, 6));
      made.push(...rows.sort((a, b) => (order(a) < order(b) ? -1 : 1)));
    }
    return made;
  }

  /** The table as CSV. */
  csv(source) {
    return [COLUMNS, ...this.rows(source)].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }
}

/** A value as CSV has it. A text that a spreadsheet would take for a formula is set off by an apostrophe. */
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Draw a plot: a bar for each value, scaled to the largest; at least to one. */
export function drawBars(canvas, values) {
  const plot = cleared(canvas);
  if (!plot) return;
  const { context, width, height, scale, style } = plot;
  context.fillStyle = style.getPropertyValue("--pv-fps") || "#888";
  const top = Math.max(...values.map((value) => value ?? 0)) || 1;
  const step = width / values.length;
  values.forEach((value, i) => {
    if (value === null) return;
    const high = Math.max((value / top) * (height - 2 * scale), scale); // a bar of nothing is a line at the bottom
    context.fillRect(Math.round(i * step), height - high, Math.max(Math.round((i + 1) * step) - Math.round(i * step) - 1, 1), high);
  });
}
