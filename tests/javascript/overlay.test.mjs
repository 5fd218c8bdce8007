// What is drawn over a picture: the calls that a 2D context gets, written down.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Overlay } from "../../perception/server/page/static/overlay.js";

const MODEL = {
  segmentation: [{ name: "road", color: [10, 20, 30] }, { name: "car", color: [0, 0, 255] }],
  detection: [{ name: "car", color: [0, 0, 255] }, { name: "person", color: [255, 0, 0] }],
  classification: [{ name: "street" }, { name: "beach" }],
  ignored: [],
};
const RESULT = {
  width: 100, height: 50, mapWidth: 3, mapHeight: 2,
  boxes: Float32Array.of(10, 20, 30, 40, 60, 10, 80, 50), scores: Float32Array.of(0.9, 0.414), classIds: Int32Array.of(0, 1),
  labelIds: new Int32Array(), labelScores: new Float32Array(), runs: Uint8Array.of(0, 4, 1, 2),
};
const ALL = { masks: true, boxes: true, labels: true, opacity: 0.5, mirror: false, hidden: new Set() };

/** A context that writes down what it is asked for, each with the colours and the transform it has then. */
function recorder(width, height) {
  const calls = [];
  let saved = [];
  const context = {
    canvas: { width, height }, calls, matrix: [1, 0],
    save() { saved.push({ matrix: this.matrix, globalAlpha: this.globalAlpha }); },
    restore() { Object.assign(this, saved.pop()); },
    translate(x) { this.matrix = [this.matrix[0], this.matrix[1] + this.matrix[0] * x]; },
    scale(x) { this.matrix = [this.matrix[0] * x, this.matrix[1]]; },
    measureText: (text) => ({ width: 6 * text.length }),
    createImageData: (w, h) => ({ width: w, height: h, data: new Uint8ClampedArray(4 * w * h) }),
    putImageData(image) { calls.push({ name: "putImageData", data: [...image.data] }); },
  };
  for (const name of ["strokeRect", "fillRect", "fillText", "drawImage"])
    context[name] = (...given) => calls.push({ name, given, stroke: context.strokeStyle, fill: context.fillStyle, alpha: context.globalAlpha, matrix: context.matrix });
  context.globalAlpha = 1;
  return context;
}

function draw(options, result = RESULT, [width, height] = [200, 100]) {
  const map = recorder(0, 0);
  const context = recorder(width, height);
  const overlay = new Overlay({ width: 0, height: 0, getContext: () => map });
  overlay.draw(context, result, MODEL, { ...ALL, ...options });
  const named = (name) => context.calls.filter((call) => call.name === name);
  return { named, calls: context.calls, painted: map.calls, overlay, context };
}

test("a tracked box says who it is", () => {
  const tracked = { ...RESULT, trackIds: Uint32Array.of(7, 12) };
  assert.deepEqual(draw({}, tracked).named("fillText").map(({ given }) => given[0]), ["#7 car 90%", "#12 person 41%"]);
});

test("mask, boxes and labels lie where the result says, scaled to the canvas", () => {
  const { named, painted } = draw({});
  assert.deepEqual(painted[0].data, [...Array(4).fill([10, 20, 30, 255]), ...Array(2).fill([0, 0, 255, 255])].flat());
  const [image] = named("drawImage");
  assert.deepEqual([image.given.slice(1), image.alpha, image.matrix], [[0, 0, 200, 100], 0.5, [1, 0]]);
  // the surest is drawn last, over the others
  assert.deepEqual(named("strokeRect").map(({ given, stroke }) => [given, stroke]), [
    [[121, 21, 38, 78], "rgb(255 0 0)"],
    [[21, 41, 38, 38], "rgb(0 0 255)"],
  ]);
  assert.deepEqual(named("fillText").map(({ given }) => given[0]), ["car 90%", "person 41%"]);
});

test("labels lie over all boxes, and where they would pile up the surest are written", () => {
  const many = 160;
  const boxes = Float32Array.from({ length: 4 * many }, (_, i) => [10, 20, 30, 40][i % 4] + Math.floor(i / 4) / 50);
  const scores = Float32Array.from({ length: many }, (_, i) => 0.9 - i / 200);
  const { named, calls } = draw({}, { ...RESULT, boxes, scores, classIds: new Int32Array(many) }, [1000, 500]);
  assert.equal(named("strokeRect").length, many);
  const words = named("fillText").map(({ given }) => given[0]);
  assert.equal(words[0], "car 90%");
  assert.ok(words.length >= 1 && words.length <= 4, words);
  const last = calls.findLastIndex(({ name }) => name === "strokeRect");
  assert.ok(calls.findIndex(({ name }) => name === "fillText") > last);
});

test("mirrored, everything but the text is mirrored", () => {
  const { named, context } = draw({ mirror: true });
  const [image] = named("drawImage");
  assert.deepEqual(image.matrix, [-1, 200]); // x of the canvas is 200 - x of the picture
  assert.deepEqual(context.matrix, [1, 0]);
  const [person, car] = named("strokeRect");
  assert.deepEqual([person.given[0], car.given[0]], [200 - 160 + 1, 200 - 60 + 1]);
  assert.ok(named("fillText").every(({ matrix }) => matrix[0] === 1));
});

test("what is switched off is not drawn", () => {
  assert.equal(draw({ masks: false }).named("drawImage").length, 0);
  assert.equal(draw({ opacity: 0 }).named("drawImage").length, 0);
  assert.equal(draw({}, { ...RESULT, mapWidth: 0 }).named("drawImage").length, 0);
  assert.equal(draw({ boxes: false }).named("strokeRect").length, 0);
  assert.equal(draw({ labels: false }).named("fillText").length, 0);
  assert.equal(draw({}, null).calls.length, 0);
  const { named, painted } = draw({ hidden: new Set(["car"]) });
  assert.deepEqual(named("fillText").map(({ given }) => given[0]), ["person 41%"]);
  assert.deepEqual(painted[0].data.slice(16), Array(8).fill(0));
});

test("whole-image labels stand at the bottom, the most likely first", () => {
  const result = { ...RESULT, labelIds: Int32Array.of(1, 0), labelScores: Float32Array.of(0.75, 0.25) };
  const texts = draw({ boxes: false }, result).named("fillText").map(({ given }) => given);
  assert.deepEqual(texts.map(([text]) => text), ["beach 75%", "street 25%"]);
  assert.ok(texts[0][2] < texts[1][2] && texts[1][2] < 100);
});

test("the class map is painted once for a result and its hidden classes", () => {
  const { overlay, context, painted } = draw({});
  overlay.draw(context, RESULT, MODEL, ALL);
  assert.equal(painted.length, 1);
  overlay.draw(context, RESULT, MODEL, { ...ALL, hidden: new Set(["road"]) });
  assert.equal(painted.length, 2);
  overlay.draw(context, { ...RESULT }, MODEL, { ...ALL, hidden: new Set(["road"]) });
  assert.equal(painted.length, 3);
});
