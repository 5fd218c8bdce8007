// When a frame of the camera is sent: a video, a network and an engine, played through in time.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Pacing } from "../../perception/server/page/static/pacing.js";
import { Clock } from "./clock.mjs";
import { random } from "./random.mjs";

/**
 * Plays a video of so many frames. trip(n) is how long the n-th frame and its answer are on their way, engine how long
 * the one engine is busy with each. Gives every frame sent as {number, at, before: frames in flight then}.
 */
function play({ frames, frameMs = 33, trip = () => 10, engine = 10, drop = () => false }) {
  const clock = new Clock();
  const pacing = new Pacing();
  const sends = [];
  let fresh = false;
  let next;
  let free = 0;
  const pump = () => {
    if (!fresh) return;
    const wait = pacing.wait(clock.now);
    if (wait > 0) {
      clock.clearTimeout(next);
      if (wait < Infinity) next = clock.setTimeout(pump, wait);
      return;
    }
    fresh = false;
    const number = pacing.next();
    sends.push({ number, at: clock.now, before: pacing.inFlight.size, ratio: pacing.aloneMs / pacing.frameMs });
    pacing.sent(number, clock.now, clock.now);
    const arrival = clock.now + trip(number) / 2;
    const done = Math.max(arrival, free) + engine;
    free = done;
    clock.setTimeout(() => {
      if (drop(number)) pacing.refused(number);
      else pacing.answered(number, { resize: 1, infer: engine - 2, postprocess: 1 }, clock.now);
      pump();
    }, done + trip(number) / 2 - clock.now);
  };
  for (let i = 0; i < frames; i++)
    clock.setTimeout(() => {
      pacing.shown(i + 1, clock.now);
      fresh = true;
      pump();
    }, i * frameMs);
  clock.until(frames * frameMs + 10_000);
  return { sends, pacing };
}

test("one frame is in flight where the answer comes before the next frame", () => {
  const { sends, pacing } = play({ frames: 300 });
  assert.equal(sends.length, 300);
  assert.ok(sends.every(({ before }) => before === 0));
  assert.equal(pacing.dropped, 0);
  assert.ok(Math.abs(pacing.frameMs - 33) < 1e-6 && Math.abs(pacing.aloneMs - 20) < 1e-6 && Math.abs(pacing.engineMs - 10) < 1e-6);
});

test("a second frame goes where the way is long, and no third", () => {
  const { sends, pacing } = play({ frames: 600, trip: () => 90, engine: 20 });
  assert.ok(sends.every(({ before, ratio }) => before === 0 || (before === 1 && ratio >= 1.2)));
  const pairs = sends.filter(({ before }) => before === 1).length;
  assert.ok(pairs > sends.length / 3, `${pairs} of ${sends.length}`);
  const alone = (600 * 33) / (90 + 20); // what one in flight would reach at the most
  assert.ok(sends.length > 1.4 * alone, `${sends.length}, alone ${alone}`);
  assert.equal(pacing.dropped, 600 - sends.length);
});

test("every 32nd frame goes alone, so that a way that became short is noticed", () => {
  const { sends } = play({ frames: 900, trip: () => 90, engine: 20 });
  const due = sends.filter(({ number }) => number % 32 === 0);
  assert.ok(due.length > 5 && due.every(({ before }) => before === 0));
  const shorter = play({ frames: 1500, trip: (n) => (n < 300 ? 90 : 4), engine: 10 }).sends;
  assert.ok(shorter.slice(-200).every(({ before }) => before === 0));
  assert.equal(shorter.at(-1).number - shorter.at(-200).number, 199);
});

test("whatever the network does, at most two are in flight, and each frame is counted once", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed);
    const engine = 5 + next(60);
    const base = next(150);
    const { sends, pacing } = play({
      frames: 400, frameMs: 15 + next(60), trip: () => base + next(100), engine, drop: () => next(5) === 0,
    });
    assert.ok(sends.length > 10 && sends.every(({ before }) => before <= 1), `seed ${seed}`);
    assert.equal(pacing.inFlight.size, 0);
    assert.deepEqual(sends.map(({ number }) => number), sends.map((_, i) => i));
    assert.equal(pacing.presented, 400);
    assert.equal(pacing.dropped, 400 - pacing.analysed);
    assert.ok(pacing.analysed <= sends.length);
  }
});

test("no second frame before anything is known of the engine", () => {
  const pacing = new Pacing();
  pacing.shown(1, 0);
  pacing.sent(pacing.next(), 0, 0);
  assert.equal(pacing.wait(10_000), Infinity);
});

test("the second one is timed to arrive when the engine is about to be free", () => {
  const pacing = new Pacing();
  for (let i = 0; i < 3; i++) pacing.shown(i + 1, 33 * i);
  pacing.sent(pacing.next(), 0, 0);
  assert.equal(pacing.answered(0, { resize: 2, infer: 15, postprocess: 3 }, 100), 0);
  assert.equal(pacing.wait(100), 0);
  pacing.sent(pacing.next(), 100, 101);
  assert.equal(pacing.wait(105), 16);
  assert.equal(pacing.wait(130), 0);
});

test("an answer settles older ones; one that nobody waits for is nothing", () => {
  const pacing = new Pacing();
  const none = { resize: 0, infer: 1, postprocess: 0 };
  for (const taken of [5, 6]) pacing.sent(pacing.next(), taken, taken);
  assert.equal(pacing.answered(1, none, 50), 6);
  assert.equal(pacing.inFlight.size, 0);
  assert.equal(pacing.answered(0, none, 60), undefined);
  pacing.sent(pacing.next(), 70, 70);
  pacing.forget();
  assert.equal(pacing.answered(2, none, 80), undefined);
  assert.equal(pacing.analysed, 1);
});

test("a pause is no slow frame, and frames missed between two callbacks count", () => {
  const pacing = new Pacing();
  pacing.shown(7, 0); // the video had played before
  assert.equal(pacing.presented, 1);
  pacing.shown(8, 40);
  pacing.shown(10, 120);
  assert.ok(Math.abs(pacing.frameMs - 40) < 1e-9);
  pacing.shown(11, 60_000);
  assert.ok(Math.abs(pacing.frameMs - 40) < 1e-9);
  pacing.shown(11, 60_001); // the same frame told of again
  assert.ok(Math.abs(pacing.frameMs - 40) < 1e-9);
  assert.equal(pacing.presented, 5);
});

test("a number is a u32", () => {
  const pacing = new Pacing();
  pacing.number = 2 ** 32 - 1;
  assert.deepEqual([pacing.next(), pacing.next()], [2 ** 32 - 1, 0]);
});
