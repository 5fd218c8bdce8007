// Helpers of the tabs: addresses, options, names, progress, statistics, legend.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { StreamStatistics, percentile } from "../../perception/server/page/static/statistics.js";
import { changeSource, facts, firstSentence, isCamera, modelFor, purpose } from "../../perception/server/page/static/choices.js";
import { nextSwitch } from "../../perception/server/page/static/classes.js";
import { legendRows, pictureRows } from "../../perception/server/page/static/legend.js";
import { address, change, classNames, clock, defaults, fileName, fileSize, nameRow, onSettings, options, query, settings } from "../../perception/server/page/static/page.js";
import { jobDone, jobProgress, uploadProgress } from "../../perception/server/page/static/progress.js";
import { cameraProblem } from "../../perception/server/page/static/webcam.js";
import { random } from "./random.mjs";

const named = (...names) => names.map((name, i) => ({ name, color: [i, i, i] }));
const MODEL = { segmentation: named("road", "car"), detection: named("car", "person"), classification: [], ignored: [] };

beforeEach(() => {
  for (const name of Object.keys(settings)) delete settings[name];
  Object.assign(settings, { show: ["Masks", "Labels"], opacity: 0.25, score: 0.3, iou: 0.6, hidden: new Set() });
});

test("addresses are of this server, under whatever path the page is served", () => {
  assert.equal(address("v1/jobs", false, "https://host:8443/cameras/?x=1").href, "https://host:8443/cameras/v1/jobs");
  assert.equal(address("v1/webcam", true, "https://host/a/").href, "wss://host/a/v1/webcam");
  assert.equal(address("v1/webcam", true, "http://127.0.0.1:7860/").href, "ws://127.0.0.1:7860/v1/webcam");
});

test("options are what is shown, with thresholds only where there are boxes and classes only where some are hidden", () => {
  assert.deepEqual(options(MODEL), { opacity: 0.25, masks: true, boxes: false, labels: true, legend: false, score: 0.3, iou: 0.6, track: false });
  assert.equal(options(MODEL, { legend: true }).legend, true);
  assert.ok(!("score" in options({ ...MODEL, detection: [] })) && !("score" in options(undefined)));
  settings.hidden = new Set(["car", "tram"]);
  assert.deepEqual(options(MODEL).classes, ["road", "person"]);
  settings.hidden = new Set(["car", "road", "person"]);
  assert.deepEqual(options(MODEL).classes, []);
  assert.equal(query(options(MODEL)).get("classes"), "");
});

test("boxes are followed where the switch is on and the model has some", () => {
  settings.track = true;
  assert.equal(options(MODEL).track, true);
  assert.ok(!("track" in options({ ...MODEL, detection: [] })));
  settings.smooth = true;
  assert.equal(options(MODEL).smooth, true);
  assert.ok(!("smooth" in options({ ...MODEL, segmentation: [] })));
  settings.smooth = false;
  assert.ok(!("smooth" in options(MODEL)));
  settings.track = false;
  assert.equal(options(MODEL).track, false);
});

test("the panoptic view is asked for where the model has it, and nowhere else", () => {
  const both = { ...MODEL, views: ["boxes", "panoptic"] };
  assert.ok(!("view" in options(both)));
  settings.view = "panoptic";
  assert.equal(options(both).view, "panoptic");
  for (const model of [{ ...MODEL, views: ["boxes"] }, MODEL, undefined]) assert.ok(!("view" in options(model)));
  settings.view = "boxes";
  assert.ok(!("view" in options(both)));
});

test("unknown pixels are asked for where the model can tell them, and nowhere else", () => {
  const sure = { ...MODEL, unknown: true };
  assert.equal(options(sure).unknown, 0);
  settings.unknown = 0.05;
  assert.equal(options(sure).unknown, 0.05);
  for (const model of [{ ...MODEL, unknown: false }, MODEL, undefined]) assert.ok(!("unknown" in options(model)));
});

test("a query holds texts, escaped", () => {
  assert.equal(query({ name: "a b&c.mp4", masks: true, classes: ["road", "traffic light"] }).toString(), "name=a+b%26c.mp4&masks=true&classes=road%2Ctraffic+light");
});

test("a class name with a comma or a quote is quoted, as in CSV", () => {
  assert.equal(nameRow(["road", "traffic light"]), "road,traffic light");
  assert.equal(nameRow(["tench, Tinca tinca", 'the "green" one', "a"]), '"tench, Tinca tinca","the ""green"" one",a');
  assert.equal(nameRow([]), "");
  assert.equal(query({ classes: ["a,b", "c"] }).get("classes"), '"a,b",c');
});

test("sizes and times as people read them", () => {
  const sizes = { 0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1 kB", 1234: "1.2 kB", 49_960: "50 kB", 999_940: "999.9 kB",
    999_999: "1 MB", 3_400_000: "3.4 MB", 2_000_000_000: "2 GB", 5e12: "5000 GB" };
  for (const [bytes, text] of Object.entries(sizes)) assert.equal(fileSize(Number(bytes)), text);
  const times = { 0: "0:00", 7.9: "0:07", 60: "1:00", 754: "12:34", 3723: "1:02:03" };
  for (const [seconds, text] of Object.entries(times)) assert.equal(clock(Number(seconds)), text);
});

test("each class name once, in the order of the heads", () => {
  assert.deepEqual(classNames(MODEL), ["road", "car", "person"]);
});

test("settings: defaults give way, changes are told to all", () => {
  defaults({ opacity: 1, mirror: true });
  assert.deepEqual([settings.opacity, settings.mirror], [0.25, true]);
  const told = [];
  onSettings((changes) => told.push(changes));
  onSettings((changes) => told.push(changes));
  change({ opacity: 0.75 });
  assert.equal(settings.opacity, 0.75);
  assert.deepEqual(told, [{ opacity: 0.75 }, { opacity: 0.75 }]);
  assert.equal(globalThis.perception.settings, settings);
});

test("files are named by the time they are made", () => {
  assert.equal(fileName("png", new Date(2026, 0, 2, 3, 4, 5)), "perception-2026-01-02-030405.png");
  assert.match(fileName("mp4"), /^perception-\d{4}-\d\d-\d\d-\d{6}\.mp4$/);
});

test("the bar: a quarter for the upload, the rest for the frames", () => {
  assert.deepEqual(uploadProgress(5, 10), { part: 0.125, text: "Uploading: 50%" });
  assert.deepEqual(uploadProgress(0, 0), { part: 0.25, text: "Uploading: 100%" }); // an empty file
  const job = (state, frames, total) => jobProgress({ name: "a.mp4", state, progress: { frames, total } });
  assert.deepEqual(job("queued", 0, 100), { part: 0.25, text: "a.mp4: waiting for other jobs" });
  assert.deepEqual(job("running", 50, 100), { part: 0.625, text: "a.mp4: 50 of 100 frames" });
  assert.deepEqual(job("running", 120, 100), { part: 1, text: "a.mp4: 120 of 100 frames" });
  assert.deepEqual(job("running", 7, null), { part: undefined, text: "a.mp4: 7 frames" });
  assert.equal(jobDone({ name: "a.mp4", fps: 31.26, progress: { frames: 9 } }), "a.mp4: 9 frames at 31.3 a second");
  assert.equal(jobDone({ name: "a.mp4", fps: null, progress: { frames: 9 } }), "a.mp4: 9 frames");
  assert.equal(jobDone({ name: "a.mp4", fps: null, progress: { frames: 1 } }), "a.mp4: 1 frame");
  assert.equal(job("running", 0, 1).text, "a.mp4: 0 of 1 frame");
});

test("statistics: rate and latency of the last seconds, one point a second for a minute", () => {
  const statistics = new StreamStatistics();
  for (let i = 0; i <= 100; i++) statistics.add(40 * i, i < 50 ? 1000 : i, { infer: 5 });
  const { fps, p50, p95 } = statistics.now(4000);
  assert.ok(Math.abs(fps - 25) < 1e-9);
  assert.equal(p50, 100); // 51 values from 50 to 100, 50 of 1000
  assert.equal(p95, 1000);
  assert.equal(statistics.total, 101);
  assert.deepEqual([statistics.now(100_000).fps, statistics.now(100_000).p50], [0, NaN]);
  statistics.add(100_000, 1, {});
  assert.equal(statistics.results.length, 1);
  for (let i = 0; i < 70; i++) statistics.point({ fps: i, p50: NaN });
  assert.equal(statistics.points.length, 60);
  assert.deepEqual(statistics.points.at(-1), { fps: 69, latency: 0 });
});

test("percentiles lie among the values", () => {
  assert.ok(Number.isNaN(percentile([], 0.5)));
  assert.deepEqual([0, 0.5, 0.95, 1].map((part) => percentile([9, 10, 1], part)), [1, 9, 10, 10]);
  const next = random(7);
  for (let i = 0; i < 100; i++) {
    const values = Array.from({ length: 1 + next(50) }, () => next(1000));
    const part = next(101) / 100;
    const found = percentile(values, part);
    assert.ok(values.includes(found));
    assert.ok(values.filter((v) => v < found).length <= part * values.length);
    assert.ok(values.filter((v) => v <= found).length >= Math.min(part * values.length, values.length));
  }
});

test("the legend: parts of the picture and counts, a name once, the largest first", () => {
  const result = { shares: [0.2, 0.7], classIds: Int32Array.of(0, 1, 0, 1, 1) };
  assert.deepEqual(legendRows(result, MODEL), [
    { name: "car", css: "rgb(1 1 1)", share: 0.7, count: 2 },
    { name: "road", css: "rgb(0 0 0)", share: 0.2 },
    { name: "person", css: "rgb(1 1 1)", count: 3 },
  ]);
  const quiet = { shares: [0.99, 0.004], classIds: new Int32Array() };
  assert.deepEqual(legendRows(quiet, MODEL).map(({ name }) => name), ["road"]);
  assert.deepEqual(legendRows(quiet, { ...MODEL, ignored: [0] }), []);
});

test("a picture's legend: how many boxes, what part of the picture, how sure of the whole", () => {
  const seen = { detections: [{ class: "person" }, { class: "car" }, { class: "person" }], shares: { road: 0.7, car: 0.2, sky: 0.004, void: 0.1 } };
  const model = { ...MODEL, segmentation: named("road", "car", "void"), ignored: [2] };
  assert.deepEqual(pictureRows(seen, model), [
    { name: "person", css: "rgb(1 1 1)", count: 2 },
    { name: "car", css: "rgb(0 0 0)", count: 1, share: 0.2 },
    { name: "road", css: "rgb(0 0 0)", share: 0.7 },
  ]);
  const whole = { segmentation: [], detection: [], classification: named("cat", "dog"), ignored: [] };
  assert.deepEqual(pictureRows({ labels: [{ class: "cat", probability: 0.25 }] }, whole), [{ name: "cat", css: undefined, share: 0.25 }]);
});

test("what a model is for, and which settings mean something", () => {
  const task = (...names) => ({ segmentation: [], detection: [], classification: [], ...Object.fromEntries(names.map((n) => [n, named("a")])) });
  assert.equal(purpose(task("segmentation", "detection")), "masks and boxes");
  assert.equal(purpose(task("classification")), "a class for the picture");
  assert.equal(firstSentence("Streets, at 4.5 m. A network."), "Streets, at 4.5 m.");
  assert.equal(firstSentence("no stop"), "no stop");
  const both = { ...task("segmentation", "detection"), views: ["boxes", "panoptic"] };
  assert.deepEqual(facts(both, { source: "server:a b" }), {
    pvTab: "live", pvSource: "server", pvTasks: "segmentation detection", pvUnknown: "no", pvViews: "boxes panoptic",
  });
  assert.equal(facts({ ...both, unknown: true }, {}).pvUnknown, "yes");
  for (const source of ["webcam", "file"]) {
    assert.equal(facts(both, { tab: "live", source }).pvViews, "boxes"); // drawn by the browser
    assert.equal(facts(both, { tab: "video", source }).pvViews, "boxes panoptic");
  }
  assert.deepEqual(facts(undefined, {}), { pvTab: "live", pvSource: "", pvTasks: "", pvUnknown: "no", pvViews: "" });
});

test("keys lead round the switches", () => {
  const ways = { ArrowRight: [1, 2, 0], ArrowDown: [1, 2, 0], ArrowLeft: [2, 0, 1], ArrowUp: [2, 0, 1], Home: [0, 0, 0], End: [2, 2, 2] };
  for (const [key, to] of Object.entries(ways)) assert.deepEqual([0, 1, 2].map((at) => nextSwitch(key, at, 3)), to);
  assert.equal(nextSwitch("Tab", 0, 3), undefined);
  assert.equal(nextSwitch("Home", -1, 0), undefined);
});

test("why there is no camera, in words", () => {
  assert.match(cameraProblem({ name: "NotAllowedError" }), /denied/);
  assert.match(cameraProblem({ name: "NotFoundError" }), /No camera was found/);
  assert.match(cameraProblem({ name: "OverconstrainedError" }), /No camera was found/);
  assert.match(cameraProblem({ name: "NotReadableError" }), /in use/);
  assert.match(cameraProblem(new Error("it is broken")), /it is broken/);
  assert.match(cameraProblem("odd"), /odd/);
});

test("a camera begins with the model for cameras, everything else with the server's, until another one is chosen", () => {
  const known = { default: "street", camera: "rooms", models: { street: MODEL, rooms: MODEL, other: MODEL } };
  const kept = new Map();
  globalThis.localStorage = { getItem: (name) => kept.get(name) ?? null, setItem: (name, text) => kept.set(name, text) };
  try {
    for (const [source, camera] of [["webcam", true], ["server:0", true], ["server:12", true], ["server:street", false], ["server:0x", false], ["file", false], ["url", false]]) {
      assert.equal(isCamera(source), camera, source);
      assert.equal(modelFor(source, known), camera ? "rooms" : "street");
    }
    kept.set("perception.camera-model", "other");
    assert.deepEqual([modelFor("webcam", known), modelFor("file", known)], ["other", "street"]);
    kept.set("perception.model", "gone"); // a model that the server no longer has
    assert.equal(modelFor("file", known), "street");
    settings.model = "street";
    const seen = [];
    onSettings((changes) => seen.push(changes));
    changeSource("webcam", known);
    changeSource("server:0", known);
    assert.deepEqual(seen, [{ source: "webcam", model: "other" }, { source: "server:0" }]);
  } finally {
    delete globalThis.localStorage;
  }
});
