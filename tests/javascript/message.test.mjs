// The binary message, made by the server's own encoder (messages.py) and read by the page.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { paintRuns, unpack } from "../../perception/server/page/static/message.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

function encoded() {
  const run = spawnSync(process.env.PYTHON ?? "python3", ["-m", "tests.javascript.messages"], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout.trim().split("\n").map((line) => JSON.parse(line));
}

const cases = encoded();
const bytes = ({ message }) => Uint8Array.from(Buffer.from(message, "base64")).buffer;
const near = (actual, expected, what) => {
  assert.equal(actual.length, expected.length, what);
  actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) <= 1e-6 * Math.max(Math.abs(expected[i]), 1), `${what}[${i}]: ${value}, not ${expected[i]}`));
};

test("what the server packs is read back, number for number", () => {
  assert.ok(cases.length >= 80);
  for (const expected of cases) {
    const result = unpack(bytes(expected));
    for (const name of ["number", "width", "height"]) assert.equal(result[name], expected[name], name);
    for (const name of ["boxes", "scores", "classIds", "trackIds", "labelIds", "labelScores"]) near(result[name], expected[name], name);
    assert.deepEqual(Object.keys(result.timings), Object.keys(expected.timings));
    near(Object.values(result.timings), Object.values(expected.timings), "timings");
    if (expected.shares) near(result.shares, expected.shares, "shares");
    assert.equal(result.shares.length, expected.masks ? 3 : 0);
  }
  assert.ok(cases.some(({ trackIds }) => trackIds.length > 0) && cases.some(({ scores, trackIds }) => scores.length > trackIds.length));
  assert.ok(cases.some(({ scores }) => scores.length > 0) && cases.some(({ labelIds }) => labelIds.length > 0));
});

test("the class map is painted pixel for pixel", () => {
  const colors = Uint32Array.from({ length: 256 }, (_, i) => 1000 + i);
  let maps = 0;
  for (const expected of cases) {
    const { mapWidth, mapHeight, runs, width, height } = unpack(bytes(expected));
    if (!expected.masks || !expected.cells) {
      assert.deepEqual([mapWidth, mapHeight, runs.length], [0, 0, 0]);
      continue;
    }
    const longest = Math.min(expected.cells, Math.max(width, height));
    assert.equal(Math.max(mapWidth, mapHeight), longest);
    const pixels = new Uint32Array(mapWidth * mapHeight);
    paintRuns(runs, colors, pixels);
    assert.ok(pixels.every((pixel) => pixel >= 1000 && pixel < 1003));
    if (!expected.map) continue;
    maps += 1;
    assert.deepEqual(pixels, Uint32Array.from(expected.map, (id) => 1000 + id));
  }
  assert.ok(maps >= 14);
});

test("what is cut short, too long or something else is refused", () => {
  const whole = bytes(cases.find(({ scores, map }) => scores.length && map));
  for (let length = 0; length < whole.byteLength; length += length < 60 ? 1 : 7)
    assert.throws(() => unpack(whole.slice(0, length)), `${length} bytes`);
  const longer = new Uint8Array(whole.byteLength + 1);
  longer.set(new Uint8Array(whole));
  assert.throws(() => unpack(longer.buffer), /not a result message/);
  const other = whole.slice(0);
  new Uint8Array(other)[3] = 0x32; // PCR2
  assert.throws(() => unpack(other), /not a result message/);
});

test("damaged runs are refused, whatever their sum", () => {
  const colors = new Uint32Array(256);
  const paint = (runs, cells) => paintRuns(Uint8Array.from(runs), colors, new Uint32Array(cells));
  paint([1, 4], 4);
  paint([1, 0x80 | 44, 2], 300);
  for (const [runs, cells] of [
    [[], 4],
    [[1, 3], 4],
    [[1, 5], 4],
    [[1], 4],
    [[1, 0x84], 4], // the length goes on, and the code does not
    [[1, 4, 2, 0], 4],
    [[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 5], 4], // -1, were it taken for a signed number
    [[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], 4],
  ])
    assert.throws(() => paint(runs, cells), /class map/, `${runs}`);
});
