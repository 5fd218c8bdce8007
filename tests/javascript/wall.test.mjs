// The Wall tab: what comes on its socket, and what it says of a source.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = { baseURI: "http://localhost/", addEventListener() {} };
const { condition, counts, picture } = await import("../../perception/server/page/static/wall.js");

test("a picture and whose it is", () => {
  for (const id of ["gate", "0123456789ab", "x".repeat(64)]) {
    const jpeg = Uint8Array.from({ length: 300 }, (_, i) => i % 256);
    const got = picture(Uint8Array.from([id.length, ...new TextEncoder().encode(id), ...jpeg]).buffer);
    assert.equal(got.id, id);
    assert.deepEqual([...got.jpeg], [...jpeg]);
  }
});

test("counts in words", () => {
  assert.equal(counts({ boxes: 0, rules: {} }), "0 boxes");
  assert.equal(counts({ boxes: 1, rules: { yard: { inside: 2 } } }), "1 box; yard: 2");
  const gate = { crossed: { in: { car: 2, bus: 3 }, out: {} } };
  assert.equal(counts({ boxes: 3, rules: { gate } }), "3 boxes; gate: in 5, out 0");
});

test("the state in words", () => {
  assert.equal(condition({ state: "running", message: "", fps: 4.96 }), "running, 5.0 frames/s");
  assert.equal(condition({ state: "running", message: "too busy", fps: 4 }), "running: too busy");
  assert.equal(condition({ state: "reconnecting", message: "no answer", fps: 0 }), "reconnecting: no answer");
  assert.equal(condition({ state: "paused", message: "", fps: 0 }), "paused");
});
