// Live video: close to the newest picture, with a buffer that does not grow.

import assert from "node:assert/strict";
import { test } from "node:test";

import { keepUp, quoted } from "../../perception/server/page/static/playback.js";
import { random } from "./random.mjs";

test("the player goes on where it is unless it is behind", () => {
  assert.deepEqual(keepUp(4.5, [[0, 5]]), { seek: null, forget: null });
  assert.deepEqual(keepUp(4, [[0, 5]]), { seek: null, forget: null });
  assert.deepEqual(keepUp(3.9, [[0, 5]]), { seek: 4.9, forget: null });
  assert.deepEqual(keepUp(0, [[7, 7.05]]), { seek: 7, forget: null });
  assert.deepEqual(keepUp(2, [[0, 2], [8, 9]]), { seek: 8.9, forget: null }); // over a gap
});

test("what was played is forgotten in large steps", () => {
  assert.deepEqual(keepUp(19.9, [[0, 20]]).forget, null);
  assert.deepEqual(keepUp(20, [[0, 20.5]]).forget, [0, 10.5]);
  assert.deepEqual(keepUp(29, [[0, 2], [8, 29.5]]).forget, [0, 19.5]);
});

test("over an hour the buffer stays small and the player close to its end", () => {
  const next = random(6);
  let [start, end, time, removals] = [0, 0.04, 0, 0];
  while (end < 3600) {
    end += 0.2;
    time = Math.min(time + (next(50) === 0 ? 0 : 0.2), end); // it stumbles now and then
    const { seek, forget } = keepUp(time, [[start, end]]);
    time = seek ?? time;
    if (forget) {
      assert.equal(forget[0], start);
      [, start] = forget;
      removals += 1;
    }
    assert.ok(end - start <= 20.21 && time >= start && time <= end && end - time <= 1 + 1e-9);
  }
  assert.ok(removals < 3600 / 9);
});

test("codecs are quoted once", () => {
  assert.equal(quoted("video/mp4; codecs=avc1.64001f"), 'video/mp4; codecs="avc1.64001f"');
  assert.equal(quoted('video/mp4; codecs="avc1.64001f"'), 'video/mp4; codecs="avc1.64001f"');
});
