// The Live tab: one stage that shows a source, its controls, its statistics and what is in view.

import { StreamStatistics, drawPlot } from "./statistics.js";
import { changeSource, modelFor } from "./choices.js";
import { mapCells } from "./geometry.js";
import { legendItems, legendRows } from "./legend.js";
import { Overlay } from "./overlay.js";
import { clock, defaults, download, fileName, fileSize, onSettings, request, settings } from "./page.js";
import { Recorder } from "./record.js";
import { Rules } from "./rules.js";
import { StreamView } from "./stream.js";
import { WebcamView } from "./webcam.js";

const PATIENCE_MS = 1000; // longer without a result, and the user is told what the server is waiting for
const LOST = ["reconnecting", "stalled"]; // states in which what is shown is old

export function mount(element, known) {
  const model = modelFor(known.source, known);
  defaults({
    source: known.source,
    model,
    score: known.models[model]?.score ?? 0.3,
    iou: known.models[model]?.iou ?? 0.6,
    unknown: known.unknown,
    opacity: 0.5,
    show: ["Masks", "Boxes", "Labels", "Legend"],
    track: true,
    mirror: true,
    hidden: new Set(),
  });
  const live = new Live(element, known);
  window.perception.live = live; // for measuring and for looking inside
  live.select();
}

class Live {
  constructor(element, known) {
    const find = (name) => element.querySelector(`.pv-${name}`);
    this.known = known;
    this.parts = Object.fromEntries(
      ["stage", "video", "image", "canvas", "state", "message", "start", "camera", "pause", "snapshot", "record", "choose", "file",
        "note", "fps", "p50", "p95", "dropped", "plot", "engine", "legend"].map((name) => [name, find(name)]),
    );
    this.statistics = new StreamStatistics();
    this.overlay = new Overlay();
    this.view = null;
    this.result = null;
    this.rules = new Rules(element, {
      redraw: () => this.redraw(),
      mirror: () => Boolean(this.view?.mirror),
      source: () => settings.source.replace(/^server:/, ""),
    });
    const { parts } = this;
    parts.video.muted = true; // or no browser plays it before a click
    parts.pause.onclick = () => this.togglePause();
    parts.snapshot.onclick = () => this.guarded(() => this.snapshot());
    parts.record.onclick = () => this.guarded(() => this.toggleRecording());
    parts.start.onclick = () => this.start();
    parts.camera.onclick = () => this.useCamera();
    parts.file.onchange = () => parts.file.files[0] && this.openFile(parts.file.files[0]);
    onSettings((changes) => this.onSettings(changes));
    new ResizeObserver(() => this.onResize()).observe(parts.stage);
    for (const event of ["resize", "loadedmetadata"])
      parts.video.addEventListener(event, () => this.size(parts.video.videoWidth, parts.video.videoHeight));
    setInterval(() => {
      this.showStatistics();
      this.showRecording();
    }, 1000);
  }

  get model() {
    return this.view?.model?.segmentation ? this.view.model : this.known.models[settings.model];
  }

  get hasBoxes() {
    return Boolean((this.view?.model ?? this.model)?.detection?.length);
  }

  // What is shown

  /** Show what the Source control says: at once where that needs nobody's leave, else after a click. */
  select() {
    this.stop();
    const { parts } = this;
    parts.choose.hidden = settings.source !== "file";
    parts.camera.hidden = settings.source === "webcam";
    if (this.known.problem) return this.tell(this.known.problem);
    if (settings.source === "webcam") this.tell("Your camera plays here, in the browser; small copies of its pictures go to the server.", "Start the camera");
    else if (settings.source === "file") this.tell("Choose a video. It plays here, in the browser; small copies of its pictures go to the server.");
    else if (settings.source === "url") this.tell(settings.url ? "" : "Type the URL of a stream, then press Enter.", settings.url && "Start");
    else this.start();
  }

  start() {
    if (settings.source === "webcam") return this.open(this.own(), (view) => view.openCamera());
    const source = settings.source === "url" ? settings.url : settings.source.replace(/^server:/, "");
    const view = new StreamView(this.parts.video, this.parts.image, this.listener());
    return this.open(view, () => view.open(source, this.known.models[settings.model]));
  }

  async useCamera() {
    const focused = document.activeElement === this.parts.camera; // which disappears
    changeSource("webcam", this.known);
    await this.start();
    if (focused && document.activeElement === document.body) this.parts.pause.focus(); // unless somebody has gone on
  }

  openFile(file) {
    return this.open(this.own(), (view) => view.openFile(file));
  }

  own() {
    return new WebcamView(this.parts.video, this.listener());
  }

  async open(view, begin) {
    this.stop();
    this.tell("");
    this.view = view;
    this.parts.video.hidden = false;
    this.sayPreparing(view);
    try {
      await begin(view);
      if (this.view === view) this.enable(true);
      if (this.view === view) this.rules.open(view, this.hasBoxes);
    } catch (error) {
      if (this.view === view) this.failed(error.message);
    }
  }

  /** Say so as long as a view waits for the server to load its model, or goes on with another one until then. */
  async sayPreparing(view) {
    const model = (this.awaited = settings.model);
    const waits = () => this.view === view && this.awaited === model && !this.status && !(view.ready && view.model.model === model);
    const pause = () => new Promise((done) => setTimeout(done, PATIENCE_MS));
    const say = (words) => (view.ready ? this.note(words) : this.tell(words));
    let told = false;
    for (await pause(); waits(); await pause()) {
      const words = await this.preparing(model);
      if (!words || !waits()) break;
      say(words);
      told = true;
    }
    if (told && this.view === view && this.awaited === model) [this.tell(""), this.note("")];
  }

  /** What the server does with a model that is not there yet, in words; else nothing. */
  async preparing(model) {
    const { status } = await request("readyz").catch((error) => error);
    if (status === 503) return "The server is preparing its model. The first start on a machine can take a minute; later ones take seconds.";
    if (status !== 200) return "";
    const models = await request("v1/models").then((answer) => answer.json()).catch(() => []);
    return models.some(({ name, loaded }) => name === model && !loaded) ? `The server is preparing ${model}. The first time takes longest.` : "";
  }

  /** What a view tells of. One that is closed tells nothing more. */
  listener() {
    return {
      state: (name, message) => this.state(name, message),
      model: (model) => (this.parts.engine.textContent = `${model.model}: ${model.engine}`),
      result: (result, taken) => this.show(result, taken),
      rules: () => this.rules.tell(this.hasBoxes),
      readings: (rules, active) => this.rules.say(rules, active),
      status: (status) => this.onStatus(status),
      size: (width, height) => this.size(width, height),
      error: (text) => {
        this.awaited = null; // it may be that it cannot be had
        this.note(text, true);
      },
      problem: (text) => this.note(text), // stays, until an empty one says that all is well
    };
  }

  stop() {
    const view = this.view;
    this.view = null;
    view?.close();
    this.parts.pause.textContent = "Pause";
    this.rules.close();
    this.forget();
    this.enable(false);
    this.state("");
    this.note("");
    this.guarded(() => this.endRecording()); // what was recorded is kept, and nothing records on unseen
  }

  /** Drop results and figures, which are not true any more. */
  forget() {
    this.result = null;
    this.status = null;
    this.statistics.clear();
    this.legend([]);
    this.redraw();
    this.showStatistics();
  }

  failed(message) {
    this.stop();
    this.state("failed");
    this.tell(message, settings.source === "file" ? "" : "Try again");
  }

  ended() {
    this.stop();
    this.state("ended");
    this.tell("This source has ended.", "Start again");
  }

  onSettings(changes) {
    if ("source" in changes) return this.select();
    if ("url" in changes) return settings.source === "url" && this.start();
    if ("sources" in changes) return;
    if ("model" in changes) {
      this.result = null;
      if (this.view instanceof StreamView) return this.start();
      if (this.view) this.sayPreparing(this.view);
    }
    this.view?.configure();
    this.redraw();
    this.showLegend();
  }

  onResize() {
    const cells = mapCells(this.parts.stage.clientWidth);
    if (cells !== settings.mapCells) {
      settings.mapCells = cells;
      this.view?.configure();
    }
    this.redraw();
  }

  // Results

  show(result, taken) {
    this.result = result;
    if (this.passing) this.note("");
    this.redraw();
    const now = performance.now();
    this.statistics.add(now, now - taken, result.timings);
    if (now - (this.legendAt ?? 0) > 250) this.showLegend();
  }

  onStatus(status) {
    this.status = status;
    this.parts.engine.textContent = `${status.model}: ${status.engine}`;
    this.rules.say(status.rules);
    this.showLegend();
  }

  drawn() {
    const on = (name) => settings.show.includes(name);
    return {
      masks: on("Masks"),
      boxes: on("Boxes"),
      labels: on("Labels"),
      opacity: settings.opacity,
      mirror: Boolean(this.view?.mirror),
      hidden: settings.hidden,
    };
  }

  redraw() {
    const { canvas, stage, video } = this.parts;
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [Math.round(stage.clientWidth * scale), Math.round(stage.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    video.classList.toggle("pv-mirrored", Boolean(this.view?.mirror));
    if (this.view instanceof WebcamView) this.overlay.draw(context, this.result, this.result?.model, this.drawn());
    this.rules.draw(context);
  }

  /** The picture and what lies over it, as one. */
  compose(context) {
    const { width, height } = context.canvas;
    context.save();
    if (this.view.mirror) {
      context.translate(width, 0);
      context.scale(-1, 1);
    }
    context.drawImage(this.parts.video, 0, 0, width, height);
    context.restore();
    this.overlay.draw(context, this.result, this.result?.model, this.drawn());
    this.rules.draw(context, true);
  }

  // Buttons

  async guarded(action) {
    try {
      await action();
    } catch (error) {
      this.note(error.message);
    }
  }

  togglePause() {
    const resume = this.view.paused;
    this.guarded(() => (resume ? this.view.resume() : this.view.pause()));
    this.parts.pause.textContent = resume ? "Pause" : "Resume";
  }

  async snapshot() {
    const name = fileName("png");
    if (this.view instanceof StreamView) return download(await this.view.snapshot(), name);
    const { videoWidth: width, videoHeight: height } = this.parts.video;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.compose(canvas.getContext("2d"));
    download(await new Promise((done) => canvas.toBlob(done, "image/png")), name);
  }

  async toggleRecording() {
    const { record, video } = this.parts;
    record.disabled = true;
    try {
      if (this.recording) {
        await this.endRecording();
      } else if (this.view instanceof StreamView) {
        this.recording = { ...(await this.view.record()), ending: "mp4" };
      } else {
        this.recording = new Recorder(video.videoWidth, video.videoHeight, (context) => this.view && this.compose(context));
      }
      if (this.recording) {
        record.textContent = "Stop recording";
        this.note("Recording …");
      }
    } finally {
      record.disabled = !this.view;
    }
  }

  /** Finish the recording, if there is one, and offer its file. */
  async endRecording() {
    const { recording } = this;
    if (!recording) return;
    this.recording = null;
    this.parts.record.textContent = "Record";
    this.note("Finishing the recording …");
    download(await recording.stop(), fileName(recording.ending));
    this.note("The recording is in your downloads.");
  }

  /** How long and how large the recording is. */
  async showRecording() {
    const { recording } = this;
    if (!recording) return;
    const { seconds, bytes } = await recording.progress().catch(() => ({})); // asked again in a second
    if (this.recording === recording && bytes !== undefined) this.note(`Recording ${clock(seconds)}, ${fileSize(bytes)}`);
  }

  enable(running) {
    for (const name of ["pause", "snapshot", "record"]) this.parts[name].disabled = !running;
  }

  // Words and statistics

  tell(text, button = "") {
    const { message, start } = this.parts;
    message.hidden = !text && !button;
    message.querySelector("p").textContent = text;
    start.textContent = button;
    start.hidden = !button;
  }

  state(name, message = "") {
    const { stage, state } = this.parts;
    const lost = LOST.includes(name);
    stage.classList.toggle("pv-stale", lost);
    if (lost) this.forget();
    state.textContent = message ? `${name}: ${message}` : name;
    state.dataset.state = name;
    if (name === "failed" && this.view) this.failed(message || "This source failed.");
    if (name === "ended" && this.view) this.ended();
  }

  /** A line beside the buttons. A passing one goes with the next result. */
  note(text, passing = false) {
    this.parts.note.textContent = text;
    this.passing = passing;
  }

  size(width, height) {
    if (width && height) this.parts.stage.style.setProperty("--pv-ratio", width / height);
  }

  statisticsNow() {
    if (!this.status) {
      const now = this.statistics.now();
      const known = this.view && now.fps > 0;
      return { ...now, fps: known ? now.fps : NaN, dropped: known ? (this.view.pacing?.dropped ?? 0) : NaN };
    }
    const { fps, latency_ms: latency, dropped } = this.status;
    return { fps, p50: latency?.p50, p95: latency?.p95, dropped };
  }

  showStatistics() {
    const now = this.statisticsNow();
    const { parts } = this;
    const text = (value, digits, unit = "") => (Number.isFinite(value) ? `${value.toFixed(digits)}${unit}` : "–");
    parts.fps.textContent = text(now.fps, 1);
    parts.p50.textContent = text(now.p50, 0, " ms");
    parts.p95.textContent = text(now.p95, 0, " ms");
    parts.dropped.textContent = text(now.dropped, 0);
    if (this.view && !this.view.paused) this.statistics.point(now);
    drawPlot(parts.plot, this.statistics.points);
  }

  showLegend() {
    this.legendAt = performance.now();
    if (!settings.show.includes("Legend")) return this.legend([]);
    if (this.status) return this.legend(this.status.legend.map((c) => ({ ...c, css: c.color })));
    const { result } = this;
    const model = result?.model;
    this.legend(model ? legendRows(result, model) : []);
  }

  legend(rows) {
    this.parts.legend.replaceChildren(...legendItems(rows, settings.hidden));
  }
}
