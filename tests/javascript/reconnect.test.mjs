// Lost connections: when they are tried again, and when they are not.

import assert from "node:assert/strict";
import { test } from "node:test";

import { backOff, Retry, streamEnd, webcamEnd } from "../../perception/server/page/static/reconnect.js";
import { Clock } from "./clock.mjs";

test("waits double, never pass 10 s, and differ from client to client", () => {
  for (let n = 0; n < 60; n++) {
    const longest = Math.min(500 * 2 ** n, 10_000);
    assert.equal(backOff(n, () => 0), longest / 2);
    assert.ok(backOff(n, () => 1 - Number.EPSILON) <= longest);
    for (let i = 0; i < 20; i++) assert.ok(backOff(n) >= longest / 2 && backOff(n) <= 10_000);
  }
  assert.ok(new Set(Array.from({ length: 50 }, () => backOff(3))).size > 40);
});

/** Tries on a clock, and when they were. */
function started() {
  const clock = new Clock();
  const at = [];
  const retry = new Retry(() => at.push(clock.now), clock, () => 1);
  return { clock, at, retry };
}

test("a server that stays away is asked less and less often", () => {
  const { clock, at, retry } = started();
  retry.again = () => {
    at.push(clock.now);
    retry.later();
  };
  retry.later();
  clock.until(60_000);
  assert.deepEqual(at.map((time, i) => time - (at[i - 1] ?? 0)), [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000]);
});

test("a try that worked begins anew", () => {
  const { clock, at, retry } = started();
  for (let i = 0; i < 5; i++) retry.later();
  retry.worked();
  retry.later();
  clock.until(60_000);
  assert.deepEqual(at, [500]);
});

test("one call waits at the most, and none after a cancel", () => {
  const { clock, at, retry } = started();
  retry.later();
  retry.later();
  assert.equal(clock.timers.size, 1);
  retry.cancel();
  retry.cancel();
  clock.until(60_000);
  assert.deepEqual(at, []);
});

test("the browser's own timers do as well", async () => {
  await new Promise((done) => {
    const retry = new Retry(done, undefined, () => 0);
    retry.tries = -5; // 8 ms
    retry.later();
  });
});

test("what the end of a socket means", () => {
  assert.equal(webcamEnd(1008, "no token"), "refused");
  assert.equal(webcamEnd(1013, "silent for 120 s"), "idle");
  assert.equal(webcamEnd(1013, "too many webcams; try again later"), "lost");
  for (const code of [1000, 1001, 1005, 1006, 1011]) assert.equal(webcamEnd(code, ""), "lost");
  assert.equal(streamEnd(1008, "running"), "refused");
  assert.equal(streamEnd(1000, "ended"), "over");
  assert.equal(streamEnd(1011, "failed"), "over");
  for (const state of ["running", "reconnecting", "connecting", undefined]) assert.equal(streamEnd(1006, state), "lost");
});
