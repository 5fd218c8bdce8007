// What is in view: the classes of a result with their part of the picture and how many there are.

import { rgb } from "./colors.js";

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
