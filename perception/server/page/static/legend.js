// What is in view: the classes of a result with their part of the picture and how many there are.

import { rgb } from "./colors.js";
import { make } from "./page.js";

const LEAST_SHARE = 0.005; // a class with a smaller part of the picture is not in the legend

/** Rows {name, css, share?, count?} of a result of a model, the largest part first. A name is one row. */
export function legendRows(result, model) {
  const rows = new Map();
  const row = ({ name, color }) => rows.get(name) ?? rows.set(name, { name, css: rgb(color) }).get(name);
  model.segmentation.forEach((c, i) => {
    if (result.shares[i] >= LEAST_SHARE && !model.ignored.includes(i)) row(c).share = result.shares[i];
  });
  result.classIds.forEach((id) => {
    const found = row(model.detection[id]);
    found.count = (found.count ?? 0) + 1;
  });
  return [...rows.values()].sort((a, b) => (b.share ?? 0) - (a.share ?? 0));
}

/** Rows of a picture as /v1/predict describes it in JSON, boxes first, then pixels, then what the whole picture shows. */
export function pictureRows(seen, model) {
  const colors = new Map([...model.segmentation, ...model.detection].map((c) => [c.name, rgb(c.color)]));
  const ignored = new Set(model.ignored.map((i) => model.segmentation[i].name));
  const rows = new Map();
  const row = (name) => rows.get(name) ?? rows.set(name, { name, css: colors.get(name) }).get(name);
  for (const { class: name } of seen.detections ?? []) row(name).count = (row(name).count ?? 0) + 1;
  for (const [name, share] of Object.entries(seen.shares ?? {})) if (share >= LEAST_SHARE && !ignored.has(name)) row(name).share = share;
  for (const { class: name, probability } of seen.labels ?? []) row(name).share = probability;
  return [...rows.values()].sort((a, b) => (b.count ?? 0) - (a.count ?? 0) || (b.share ?? 0) - (a.share ?? 0));
}

/** Rows as items of a list, those of hidden classes left out. */
export function legendItems(rows, hidden = new Set()) {
  return rows
    .filter(({ name }) => !hidden.has(name))
    .map(({ name, css, share, count }) => {
      const item = make("li");
      if (css) {
        const swatch = make("i", "pv-swatch");
        swatch.style.background = css;
        item.append(swatch);
      }
      item.append(make("span", "pv-name", name));
      if (share !== undefined) item.append(make("b", "", `${Math.max(Math.round(100 * share), 1)}%`));
      if (count !== undefined) item.append(make("b", "", `×${count}`));
      return item;
    });
}
