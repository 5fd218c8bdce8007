// Which tab a key leads to.

import assert from "node:assert/strict";
import test from "node:test";

import { follow } from "../../perception/server/page/static/tabs.js";

test("arrows go round, Home and End to the ends", () => {
  const from = (key) => [0, 1, 2].map((at) => follow(key, at, 3));
  assert.deepEqual(from("ArrowRight"), [1, 2, 0]);
  assert.deepEqual(from("ArrowLeft"), [2, 0, 1]);
  assert.deepEqual(from("Home"), [0, 0, 0]);
  assert.deepEqual(from("End"), [2, 2, 2]);
  assert.equal(follow("ArrowRight", 0, 1), 0);
});

test("other keys are none of its business", () => {
  for (const key of ["ArrowDown", "Enter", " ", "a", "Tab", "toString", "constructor"]) assert.equal(follow(key, 0, 3), null);
});
