// Where things are drawn, and how large what is sent is.

import assert from "node:assert/strict";
import { test } from "node:test";

import { classColors, rgb, textColor } from "../../perception/server/page/static/colors.js";
import { boxOnCanvas, labelPlaces, mapCells, outline, pointInPicture, sentSize, strokes } from "../../perception/server/page/static/geometry.js";
import { random } from "./random.mjs";

const size = (width, height) => ({ width, height });

test("a box keeps its place in the picture, whatever the size of the canvas", () => {
  const next = random(1);
  for (let i = 0; i < 500; i++) {
    const frame = size(1 + next(4000), 1 + next(4000));
    const canvas = size(1 + next(4000), 1 + next(4000));
    const [x0, x1] = [next(frame.width + 1), next(frame.width + 1)].sort((a, b) => a - b);
    const [y0, y1] = [next(frame.height + 1), next(frame.height + 1)].sort((a, b) => a - b);
    const box = boxOnCanvas([x0, y0, x1, y1], frame, canvas, false);
    const parts = [x0 / frame.width, y0 / frame.height, x1 / frame.width, y1 / frame.height];
    const drawn = [box[0] / canvas.width, box[1] / canvas.height, box[2] / canvas.width, box[3] / canvas.height];
    parts.forEach((part, at) => assert.ok(Math.abs(part - drawn[at]) < 1e-9));
  }
});

test("mirrored twice is not mirrored; left stays left of right; rows stay", () => {
  const next = random(2);
  for (let i = 0; i < 200; i++) {
    const [frame, canvas] = [size(640, 480), size(1 + next(2000), 1 + next(2000))];
    const box = [next(300), next(200), 300 + next(340), 200 + next(280)];
    const plain = boxOnCanvas(box, frame, canvas, false);
    const mirrored = boxOnCanvas(box, frame, canvas, true);
    const back = boxOnCanvas(mirrored, canvas, canvas, true);
    plain.forEach((value, at) => assert.ok(Math.abs(value - back[at]) < 1e-9));
    assert.ok(mirrored[0] <= mirrored[2]);
    assert.deepEqual([mirrored[1], mirrored[3]], [plain[1], plain[3]]);
  }
  assert.deepEqual(boxOnCanvas([0, 0, 160, 480], size(640, 480), size(1280, 960), true), [960, 0, 1280, 960]);
});

test("typed arrays are boxes, too", () => {
  const boxes = Float32Array.of(9, 9, 9, 9, 10, 20, 30, 40);
  assert.deepEqual(boxOnCanvas(boxes.subarray(4, 8), size(100, 100), size(200, 300), false), [20, 60, 60, 120]);
});

test("the outer edge of the line is the box, and a thin box is a line", () => {
  const [x, y, width, height] = outline([10, 20, 110, 70], 4);
  assert.deepEqual([x - 2, y - 2, x + width + 2, y + height + 2], [10, 20, 110, 70]);
  assert.deepEqual(outline([10, 20, 11, 20], 4).slice(2), [1, 1]);
});

test("lines and text grow with the shorter side and never vanish", () => {
  assert.deepEqual(strokes(10, 10), { line: 2, text: 11 });
  assert.deepEqual(strokes(1920, 1080), strokes(1080, 1920));
  assert.deepEqual(strokes(3840, 2160), { line: 9, text: 64 });
});

test("a label is above its box where there is room, and always on the canvas", () => {
  const place = (box, high, wide) => labelPlaces([{ box, size: [high, wide] }], size(640, 480))[0];
  assert.deepEqual(place([50, 40], 80, 16), [50, 24]);
  assert.deepEqual(place([50, 16], 80, 16), [50, 0]);
  assert.deepEqual(place([50, 15], 80, 16), [50, 15]);
  assert.deepEqual(place([50, -9], 80, 16), [50, 0]);
  assert.deepEqual(place([600, 40], 80, 16), [560, 24]);
  assert.deepEqual(place([-7, 40], 80, 16), [0, 24]);
  assert.deepEqual(place([600, 40], 800, 16), [0, 24]);
  assert.deepEqual(place([50, 470], 80, 16), [50, 454]);
  assert.deepEqual(place([50, 900], 80, 16), [50, 464]);
});

test("labels do not cover one another: the second place, or none; the first ones win", () => {
  const label = (x, y) => ({ box: [x, y], size: [80, 16] });
  assert.deepEqual(labelPlaces([label(50, 40), label(60, 45), label(55, 41), label(300, 40)], size(640, 480)), [[50, 24], [60, 45], null, [300, 24]]);
  const next = random(11);
  for (let i = 0; i < 50; i++) {
    const labels = Array.from({ length: 120 }, () => ({ box: [next(700) - 30, next(500) - 10], size: [20 + next(120), 14 + next(8)] }));
    const places = labelPlaces(labels, size(640, 480));
    const rects = places.map((place, n) => place && [...place, place[0] + labels[n].size[0], place[1] + labels[n].size[1]]);
    const kept = rects.filter(Boolean);
    assert.ok(kept.length <= 40);
    const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    kept.forEach((a, n) => assert.ok(a[0] >= 0 && a[1] >= 0 && a[2] <= 640 && a[3] <= 480 && !kept.slice(n + 1).some((b) => meet(a, b))));
    // none is left out while there is room above its box
    rects.forEach((rect, n) => {
      if (rect || kept.length === 40) return;
      const [[x0, y0], [wide, high]] = [labels[n].box, labels[n].size];
      const [x, y] = [Math.min(Math.max(x0, 0), 640 - wide), y0 >= high ? y0 - high : Math.max(y0, 0)];
      assert.ok(rects.slice(0, n).some((other) => other && meet([x, y, x + wide, y + high], other)));
    });
  }
});

test("a picture is sent no larger than it is, and no smaller than the network can use", () => {
  assert.deepEqual(sentSize([1280, 720], [480, 384]), [683, 384]);
  assert.deepEqual(sentSize([720, 1280], [480, 384]), [480, 853]);
  assert.deepEqual(sentSize([320, 240], [480, 384]), [320, 240]);
  assert.deepEqual(sentSize([1280, 720], [64, 48]), [320, 180]);
  assert.deepEqual(sentSize([10_000, 1], [64, 48]), [10_000, 1]);
  const next = random(3);
  for (let i = 0; i < 500; i++) {
    const [video, network] = [[1 + next(4000), 1 + next(3000)], [32 + next(1000), 32 + next(1000)]];
    const sent = sentSize(video, network);
    sent.forEach((side, at) => assert.ok(side >= 1 && side <= video[at] && side >= Math.min(video[at], network[at]) - 1));
    assert.ok(Math.max(...sent) >= Math.min(Math.max(...video), 320) - 1);
    assert.ok(Math.abs(sent[0] * video[1] - sent[1] * video[0]) <= Math.max(...video)); // the same ratio, but for rounding
  }
});

test("cells of the class map go in steps", () => {
  assert.deepEqual([0, 100, 320, 321, 800, 1281, 5000].map(mapCells), [160, 160, 160, 240, 400, 640, 640]);
});

test("a click is a point of the picture, its edges included", () => {
  const picture = size(1000, 500);
  assert.deepEqual(pointInPicture([49.5, 24.5], size(100, 50), picture), { x: 500, y: 250 });
  assert.deepEqual(pointInPicture([-3, 80], size(100, 50), picture), { x: 0, y: 499.99 });
  for (let x = 0; x < 100; x++) {
    const at = pointInPicture([x, 0], size(100, 50), picture).x;
    assert.ok(at > 10 * x && at < 10 * (x + 1));
  }
});

test("text is black or white, whichever has the greater contrast (WCAG)", () => {
  const channel = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const next = random(4);
  for (let i = 0; i < 2000; i++) {
    const color = [next(256), next(256), next(256)];
    const l = luminance(color);
    const [black, white] = [(l + 0.05) / 0.05, 1.05 / (l + 0.05)];
    if (Math.abs(Math.log(black / white)) > 0.1) assert.equal(textColor(color), black > white ? "#000" : "#fff", `${color}`);
  }
  assert.equal(rgb([1, 2, 3]), "rgb(1 2 3)");
});

test("colours of the class map are opaque RGBA, clear where a class is ignored, hidden or unknown", () => {
  const model = {
    segmentation: [{ name: "road", color: [128, 64, 255] }, { name: "sky", color: [1, 2, 3] }, { name: "void", color: [9, 9, 9] }],
    ignored: [2],
  };
  const bytes = (hidden) => [...new Uint8Array(classColors(model, new Set(hidden)).buffer).subarray(0, 16)];
  assert.deepEqual(bytes([]), [128, 64, 255, 255, 1, 2, 3, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual(bytes(["road", "sky"]), Array(16).fill(0));
  assert.equal(classColors(model, new Set()).length, 256);
});
