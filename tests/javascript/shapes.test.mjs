// Where drawn lines and zones are, what a pointer is on, and what a drag makes of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { apart, dragged, gripAt, isInside, middles, shifted, tick, toFrame, toScreen } from "../../perception/server/page/static/shapes.js";
import { random } from "./random.mjs";

const SCREEN = { width: 800, height: 450, mirror: false };
const MIRROR = { ...SCREEN, mirror: true };
const SQUARE = [[0.25, 0.2], [0.75, 0.2], [0.75, 0.8], [0.25, 0.8]];

test("a point on the screen and in the frame is the same point, mirrored or not, at any size", () => {
  const next = random(3);
  for (let i = 0; i < 500; i++) {
    const screen = { width: 200 + next(2000), height: 200 + next(1200), mirror: i % 2 === 1 };
    const point = [(5 + next(91)) / 100, (5 + next(91)) / 100];
    const back = toFrame(toScreen(point, screen), screen);
    point.forEach((value, axis) => assert.ok(Math.abs(value - back[axis]) <= 1e-4, `${point} ${back}`));
  }
  assert.deepEqual(toScreen([0.25, 0.5], MIRROR), [600, 225]);
  assert.deepEqual(toFrame([600, 225], MIRROR), [0.25, 0.5]);
});

test("near the edge a point is on it, and outside too", () => {
  assert.deepEqual(toFrame([7, 445], SCREEN), [0, 1]);
  assert.deepEqual(toFrame([-50, 900], SCREEN), [0, 1]);
  assert.deepEqual(toFrame([7, 445], MIRROR), [1, 1]);
  assert.deepEqual(toFrame([9, 440], SCREEN), [0.0113, 0.9778]);
});

test("handles come before bodies, corners before middles, the chosen shape first", () => {
  const line = [[0.25, 0.2], [0.75, 0.8]];
  const at = toScreen([0.25, 0.2], SCREEN);
  assert.deepEqual(gripAt([SQUARE, line], at, SCREEN), { shape: 1, point: 0 });
  assert.deepEqual(gripAt([SQUARE, line], at, SCREEN, 0), { shape: 0, point: 0 });
  assert.deepEqual(gripAt([SQUARE], toScreen([0.5, 0.2], SCREEN), SCREEN), { shape: 0, middle: 0 });
  assert.deepEqual(gripAt([SQUARE], toScreen([0.25, 0.5], SCREEN), SCREEN), { shape: 0, middle: 3 });
  assert.deepEqual(gripAt([SQUARE], toScreen([0.4, 0.5], SCREEN), SCREEN), { shape: 0 });
  assert.deepEqual(gripAt([line], [400, 230], SCREEN), { shape: 0 });
  assert.equal(gripAt([line, SQUARE], [100, 60], SCREEN), null);
  assert.deepEqual(gripAt([SQUARE], toScreen([0.75, 0.8], MIRROR), MIRROR), { shape: 0, point: 2 });
});

test("a drag moves the corner, makes one, or takes the whole along without leaving the frame", () => {
  assert.deepEqual(dragged(SQUARE, { point: 1 }, [600, 90], [640, 90], SCREEN)[1], [0.8, 0.2]);
  const five = dragged(SQUARE, { middle: 3 }, [200, 225], [120, 225], SCREEN);
  assert.deepEqual(five, [...SQUARE, [0.15, 0.5]]);
  assert.deepEqual(dragged(SQUARE, {}, [400, 225], [480, 180], SCREEN), [[0.35, 0.1], [0.85, 0.1], [0.85, 0.7], [0.35, 0.7]]);
  assert.deepEqual(dragged(SQUARE, {}, [400, 225], [480, 180], MIRROR), [[0.15, 0.1], [0.65, 0.1], [0.65, 0.7], [0.15, 0.7]]);
  assert.deepEqual(shifted(SQUARE, 9, -9), [[0.5, 0], [1, 0], [1, 0.6], [0.5, 0.6]]);
  assert.deepEqual(SQUARE[0], [0.25, 0.2]); // what was given stays
});

test("the tick is at the left of who walks along, in the frame; a mirror shows it mirrored", () => {
  const right = [[0.25, 0.5], [0.75, 0.5]]; // from left to right: ahead is up, as the rules have it
  assert.deepEqual(tick(right, SCREEN, 20), [[400, 225], [400, 205]]);
  assert.deepEqual(tick([...right].reverse(), SCREEN, 20)[1], [400, 245]);
  const down = [[0.25, 0.2], [0.25, 0.8]];
  assert.deepEqual(tick(down, SCREEN, 20), [[200, 225], [220, 225]]);
  assert.deepEqual(tick(down, MIRROR, 20), [[600, 225], [580, 225]]);
});

test("inside is inside, for polygons that are not convex too", () => {
  const horseshoe = [[0, 0], [9, 0], [9, 9], [6, 9], [6, 3], [3, 3], [3, 9], [0, 9]];
  assert.deepEqual([[1, 8], [4.5, 8], [8, 8], [4.5, 1], [10, 1]].map((point) => isInside(horseshoe, point)), [true, false, true, true, false]);
  assert.deepEqual(middles([[0, 0], [1, 1]]), []);
  assert.deepEqual(middles([[0, 0], [1, 0], [0, 1]]), [[0.5, 0], [0.5, 0.5], [0, 0.5]]);
  assert.ok(apart([0, 0], [7, 0]) && !apart([0, 0], [4, 4]));
});
