// What rules said over time, in words, by minute and as a plot.

import assert from "node:assert/strict";
import { test } from "node:test";

import { RuleHistory } from "../../perception/server/page/static/rule-history.js";
import { splitNames } from "../../perception/server/page/static/rule-list.js";
import { label, sentences, stay } from "../../perception/server/page/static/rule-words.js";

const START = Date.UTC(2026, 10, 30, 12, 0, 0);
const line = (north, south) => ({ gate: { crossed: { north, south } } });

/** Rows as [minute, rule, kind, class, direction, count, mean, max]. */
const rows = (history) => history.rows("street").map(([, start, ...rest]) => [start.slice(11, 16), ...rest]);

test("crossings are counted in the minute in which they came", () => {
  const history = new RuleHistory();
  history.add(START, line({ car: 7 }, {})); // before there was anybody to look
  history.add(START + 20_000, line({ car: 9 }, { truck: 1 }));
  history.add(START + 70_000, line({ car: 12 }, { truck: 1 }));
  assert.deepEqual(rows(history), [
    ["12:00", "gate", "crossed", "car", "north", 2, "", ""],
    ["12:00", "gate", "crossed", "truck", "south", 1, "", ""],
    ["12:01", "gate", "crossed", "", "south", 0, "", ""],
    ["12:01", "gate", "crossed", "car", "north", 3, "", ""],
  ]);
});

test("a rule that is drawn later, or begins anew, counts from nothing", () => {
  const history = new RuleHistory();
  history.add(START, {});
  history.add(START + 1000, line({ car: 1 }, {}));
  history.add(START + 2000, line({ car: 5 }, {}));
  history.add(START + 3000, line({ car: 2 }, {})); // it was moved
  assert.deepEqual(rows(history)[1], ["12:00", "gate", "crossed", "car", "north", 7, "", ""]);
});

test("levels are averaged over the time, with their most", () => {
  const history = new RuleHistory();
  const zone = (inside) => ({ yard: { inside, entered: {}, left: {} } });
  for (const [seconds, inside] of [[0, 0], [10, 4], [15, 1], [20, 1]]) history.add(START + 1000 * seconds, zone(inside));
  assert.deepEqual(rows(history), [["12:00", "yard", "inside", "", "", "", (10 * 0 + 5 * 4 + 5 * 1) / 20, 4]]);
  history.add(START + 3_600_000, zone(2)); // an hour without numbers counts as ten seconds
  assert.deepEqual(rows(history)[1], ["13:00", "yard", "inside", "", "", "", 1, 2]);
});

test("the table is CSV, with the columns of --summary, and no formula", () => {
  const history = new RuleHistory();
  const named = (count) => ({ '=1+1, "x"': { crossed: { "a,b": { car: count }, back: {} } } });
  history.add(START, named(0));
  history.add(START + 1000, named(1));
  assert.equal(
    history.csv("street"),
    'source,start,rule,kind,class,direction,count,mean,max\r\n' +
      'street,2026-11-30T12:00:00Z,"\'=1+1, ""x""",crossed,,back,0,,\r\n' +
      'street,2026-11-30T12:00:00Z,"\'=1+1, ""x""",crossed,car,"a,b",1,,\r\n',
  );
});

test("the plot has crossings of each five seconds, the most inside, and nothing where nothing was", () => {
  const history = new RuleHistory();
  for (let i = 0; i <= 20; i++) history.add(START + 1000 * i, { ...line({ car: i }, {}), yard: { inside: i % 5 } });
  const at = START + 22_000;
  assert.deepEqual(history.plot("gate", at).slice(-6), [null, 4, 5, 5, 5, 1]);
  assert.deepEqual(history.plot("yard", at).slice(-6), [null, 4, 4, 4, 4, 0]);
  assert.equal(history.plot("gate", at + 600_000).some((value) => value !== null), false);
  assert.equal(history.plot("nobody", at).length, 60);
});

test("memory is bounded, and a clock that is set back hurts nothing", () => {
  const history = new RuleHistory();
  for (let i = 0; i < 3000; i++) history.add(START + 60_000 * i, { ...line({ car: i }, {}), [`rule ${i}`]: { inside: 0 } });
  assert.equal(history.minutes.length, 1440);
  assert.equal(history.plots.size, 2);
  history.add(START, line({ car: 3001 }, {}));
  assert.deepEqual(rows(history).filter(([, , , , way]) => way === "north").at(-1).slice(-3), [0, "", ""]);
});

test("rules in words", () => {
  const gate = { crossed: { north: { car: 4, truck: 1 }, south: {} } };
  const yard = { inside: 5, entered: { car: 7 }, left: { car: 2 }, staying: { 3: 12.9, 9: 4, 10: 65, 11: 1, 12: 2 } };
  assert.deepEqual([label("gate", gate), label("yard", yard)], ["gate: north 5, south 0", "yard: 5"]);
  assert.deepEqual([label("road", { value: 0.301 }), label("new", {})], ["road 30%", "new"]);
  assert.deepEqual(sentences(gate), ["north 5 (car 4, truck 1)", "south 0"]);
  assert.deepEqual(sentences(yard), ["5 inside", "#10 1:05, #3 12 s, #9 4 s, #12 2 s, …", "7 entered", "2 left"]);
  assert.deepEqual(sentences({ value: 0.3, holds: true }), ["30%", "holds"]);
  assert.deepEqual([sentences({}), stay(59.9), stay(60)], [[], "59 s", "1:00"]);
});

test("classes are typed as everywhere else: commas between, quotes around a comma", () => {
  assert.deepEqual(splitNames(' car, "tench, Tinca tinca" ,truck,'), ["car", "tench, Tinca tinca", "truck"]);
  assert.deepEqual(splitNames('"say ""hello"""'), ['say "hello"']);
  assert.deepEqual(splitNames(" , "), []);
});
