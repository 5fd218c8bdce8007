// Lines and zones while they are drawn, with a server that judges them, and what pointers make of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Pen } from "../../perception/server/page/static/pen.js";
import { RuleSet } from "../../perception/server/page/static/rule-set.js";

const POINTS = [[0.1, 0.5], [0.9, 0.5]];
const SCREEN = { width: 1000, height: 500, mirror: false };

/** A server that has what it was sent last, and refuses what `judge` finds fault with: [name, text]. */
function served(judge = () => null) {
  const server = { has: {}, asked: 0 };
  const problems = [];
  const save = async (drawn) => {
    server.asked += 1;
    await null;
    const all = Object.values(drawn).flat();
    const twice = all.find((rule, i) => all.findIndex(({ name }) => name === rule.name) !== i);
    const fault = twice ? [twice.name, `two rules are called ${twice.name}`] : all.map(judge).find(Boolean);
    if (fault) throw Object.assign(new Error(fault[1]), { rule: fault[0] });
    server.has = structuredClone(drawn);
    return { faults: {} };
  };
  const set = new RuleSet(save, { changed() {}, problem: (text) => problems.push(text) });
  return { server, set, problems };
}

const same = ({ name, points }) => (String(points[0]) === String(points[1]) ? [name, "no length"] : null);
const settled = (set) => set.send();

test("what is drawn is sent, under names of its own", async () => {
  const { server, set } = served();
  set.load({ drawn: { lines: [{ name: "line 1", points: POINTS }] }, fixed: { zones: [{ name: "zone 1", points: [] }] } });
  const line = set.add("lines", POINTS);
  set.add("zones", [[0, 0], [1, 0], [1, 1]]);
  await settled(set);
  assert.deepEqual(server.has.lines.map(({ name }) => name), ["line 1", "line 2"]);
  assert.deepEqual(server.has.zones.map(({ name }) => name), ["zone 2"]);
  set.change(line, { name: "gate", classes: ["car"] });
  await settled(set);
  assert.deepEqual(server.has.lines[1], { name: "gate", points: POINTS, classes: ["car"] });
  set.change(line, { classes: undefined });
  set.remove(set.shapes[0]);
  await settled(set);
  assert.deepEqual(server.has.lines, [{ name: "gate", points: POINTS }]);
});

test("one that is wrong says so, keeps its good form at the server and holds up no other", async () => {
  const { server, set } = served(same);
  const gate = set.add("lines", POINTS);
  await settled(set);
  set.change(gate, { points: [[0.5, 0.5], [0.5, 0.5]] });
  await settled(set);
  assert.equal(gate.fault, "no length");
  assert.deepEqual(server.has, { lines: [{ name: "line 1", points: POINTS }] });
  const other = set.add("lines", [[0, 0], [1, 1]]);
  await settled(set);
  assert.deepEqual([gate.fault, other.fault], ["no length", ""]);
  assert.deepEqual(server.has.lines.map(({ points }) => points), [POINTS, [[0, 0], [1, 1]]]);
  assert.deepEqual(set.drawn.lines[0].points, [[0.5, 0.5], [0.5, 0.5]]); // still on the screen
  set.change(gate, { points: [[0.4, 0.5], [0.5, 0.5]] });
  await settled(set);
  assert.equal(gate.fault, "");
  assert.deepEqual(server.has.lines[0].points, [[0.4, 0.5], [0.5, 0.5]]);
});

test("of two of one name the one that was changed last is wrong, until the other one goes", async () => {
  const { server, set } = served();
  const [first, second] = [set.add("lines", POINTS), set.add("lines", POINTS)];
  await settled(set);
  set.change(first, { name: "line 2" });
  await settled(set);
  assert.deepEqual([first.fault, second.fault], ["two rules are called line 2", ""]);
  assert.deepEqual(server.has.lines.map(({ name }) => name), ["line 1", "line 2"]); // the first under its old name
  set.remove(second);
  await settled(set);
  assert.equal(first.fault, "");
  assert.deepEqual(server.has.lines.map(({ name }) => name), ["line 2"]);
});

test("one that is wrong, and another that takes its name: each has its own fault", async () => {
  const { server, set } = served();
  const save = set.save;
  set.save = async (drawn) => { // as the server does, which looks at each by itself first
    for (const rule of Object.values(drawn).flat()) if (same(rule)) throw Object.assign(new Error(same(rule)[1]), { rule: rule.name });
    return save(drawn);
  };
  const [first, second] = [set.add("lines", POINTS), set.add("lines", POINTS)];
  await settled(set);
  set.change(first, { points: [[0.5, 0.5], [0.5, 0.5]] });
  await settled(set);
  set.change(second, { name: "line 1" });
  await settled(set);
  assert.deepEqual([first.fault, second.fault], ["no length", "two rules are called line 1"]);
  assert.deepEqual(server.has.lines, [{ name: "line 1", points: POINTS }, { name: "line 2", points: POINTS }]);
});

test("a new one that is wrong is not sent again; all of them may be wrong", async () => {
  const { server, set } = served(({ name }) => [name, "no"]);
  const shapes = [set.add("lines", POINTS), set.add("lines", POINTS), set.add("lines", POINTS)];
  await settled(set);
  assert.deepEqual(shapes.map(({ fault }) => fault), ["no", "no", "no"]);
  assert.deepEqual(server.has, {});
  assert.ok(server.asked < 12);
});

test("many changes while the server is busy are one message, and the last one wins", async () => {
  const { server, set } = served();
  const line = set.add("lines", POINTS);
  for (let i = 1; i < 50; i++) set.change(line, { points: [[i / 100, 0], [1, 1]] });
  await settled(set);
  assert.ok(server.asked <= 3, String(server.asked));
  assert.deepEqual(server.has.lines[0].points, [[0.49, 0], [1, 1]]);
});

test("a fault of nothing in particular, as of a lost connection, is told and loses nothing", async () => {
  const { set, problems, server } = served();
  const line = set.add("lines", POINTS);
  await settled(set);
  const { save } = set;
  set.save = async () => { throw new Error("The server cannot be reached."); };
  set.change(line, { name: "gate" });
  await settled(set);
  assert.deepEqual([problems.at(-1), line.fault, line.rule.name], ["The server cannot be reached.", "", "gate"]);
  set.save = save;
  await set.retry();
  assert.deepEqual([problems.at(-1), server.has.lines[0].name], ["", "gate"]);
});

test("what a browser has kept is taken where it is rules, and left where it is something else", () => {
  const { set } = served();
  for (const drawn of [null, 7, "x", [], { lines: 5 }, { lines: [null, {}, { name: 3 }, { name: "a", points: [[1]] }] }]) {
    set.load({ drawn });
    assert.deepEqual(set.shapes, []);
  }
  set.load({ drawn: { lines: [{ name: "a", points: POINTS, hold_s: 1 }], conditions: [{ name: "c", class: "road", over: 0.1 }] } });
  assert.deepEqual(set.drawn, { lines: [{ name: "a", points: POINTS, hold_s: 1 }], conditions: [{ name: "c", class: "road", over: 0.1 }] });
});

function pen() {
  const { set } = served();
  return { set, pen: new Pen(set, { changed() {}, chosen() {} }) };
}

/** A click, or a drag over some places. */
function press(tool, ...places) {
  tool.down(places[0], SCREEN);
  for (const place of places) tool.move(place, SCREEN);
  tool.up(places.at(-1), SCREEN);
}

test("a line is drawn by a drag, or by a click at each end", () => {
  const { set, pen: tool } = pen();
  tool.begin("lines");
  press(tool, [100, 250], [500, 250], [900, 250]);
  assert.deepEqual(set.shapes.map(({ rule }) => rule.points), [[[0.1, 0.5], [0.9, 0.5]]]);
  assert.deepEqual([tool.kind, tool.chosen], [null, set.shapes[0]]);
  tool.begin("lines");
  press(tool, [100, 100]);
  press(tool, [300, 200]);
  assert.deepEqual(set.shapes[1].rule.points, [[0.1, 0.2], [0.3, 0.4]]);
});

test("a zone is drawn by clicks, and closed at its first corner, by a double click, or by a key", () => {
  const corners = [[100, 100], [500, 100], [500, 400]];
  const ways = [(t) => press(t, [103, 98]), (t) => (press(t, corners[2]), t.double(corners[2], SCREEN)), (t) => t.close()];
  for (const close of ways) {
    const { set, pen: tool } = pen();
    tool.begin("zones");
    corners.slice(0, 2).forEach((corner) => press(tool, corner));
    tool.close(); // two corners are none yet
    assert.equal(set.shapes.length, 0);
    press(tool, corners[2]);
    close(tool);
    assert.deepEqual(set.shapes.map(({ rule }) => rule.points), [[[0.1, 0.2], [0.5, 0.2], [0.5, 0.8]]]);
  }
});

test("a zone has as many corners as the server takes", () => {
  const { set, pen: tool } = pen();
  tool.begin("zones");
  for (let i = 0; i < 100; i++) press(tool, [50 + 9 * i, i % 2 ? 100 : 400]);
  tool.close();
  assert.equal(set.shapes[0].rule.points.length, 64);
});

test("handles are dragged; a tremble changes nothing; a cancelled drag neither", () => {
  const { set, pen: tool } = pen();
  const zone = set.add("zones", [[0.1, 0.2], [0.5, 0.2], [0.5, 0.8]]);
  press(tool, [500, 100], [502, 101]);
  assert.deepEqual(zone.rule.points[1], [0.5, 0.2]);
  press(tool, [500, 100], [600, 100], [700, 150]);
  assert.deepEqual(zone.rule.points, [[0.1, 0.2], [0.7, 0.3], [0.5, 0.8]]);
  tool.down([700, 150], SCREEN);
  tool.move([900, 300], SCREEN);
  assert.deepEqual(tool.pointsOf(zone)[1], [0.9, 0.6]);
  assert.ok(tool.cancel());
  tool.up([900, 300], SCREEN);
  assert.deepEqual(zone.rule.points[1], [0.7, 0.3]);
  press(tool, [400, 125], [400, 50]); // the middle of its first edge
  assert.deepEqual(zone.rule.points, [[0.1, 0.2], [0.4, 0.1], [0.7, 0.3], [0.5, 0.8]]);
  tool.double([400, 50], SCREEN);
  assert.deepEqual(zone.rule.points, [[0.1, 0.2], [0.7, 0.3], [0.5, 0.8]]);
  tool.double([100, 100], SCREEN); // three corners are the least
  assert.equal(zone.rule.points.length, 3);
});

test("escape gives up what is being drawn, first of all", () => {
  const { set, pen: tool } = pen();
  tool.begin("zones");
  press(tool, [100, 100]);
  assert.ok(tool.cancel());
  assert.ok(!tool.cancel());
  assert.deepEqual([set.shapes, tool.draft], [[], null]);
});
