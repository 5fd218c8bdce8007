// The browser's own picture: its camera or a video file, played at full rate, with the server's results beside it.
//
// Small JPEGs go to /v1/webcam and results come back, see perception/server/routes/webcam.py.

import { sentSize } from "./geometry.js";
import { unpack } from "./message.js";
import { Pacing } from "./pacing.js";
import { address, keep, kept, settings } from "./page.js";
import { Retry, webcamEnd } from "./reconnect.js";

const QUALITY = 0.8; // of the JPEGs
const ANSWER_MS = 10_000; // longer without an answer counts as a lost connection

/** Why a browser gives no camera, in words. */
export function cameraProblem(error) {
  switch (error?.name) {
    case "NotAllowedError":
      return "Camera access was denied. Allow it for this page in the browser's address bar, then start again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera was found. Plug one in, or choose another source.";
    case "NotReadableError":
      return "The camera is in use by another program, or does not answer.";
    default:
      return `The camera cannot be opened: ${error?.message ?? error}`;
  }
}

export class WebcamView {
  /**
   * @param video the <video> that plays.
   * @param on {state(name, message), model(ready), result(result, latency), error(text), problem(text),
   *   rules() are to be sent, readings(rules, active)}
   */
  constructor(video, on) {
    this.video = video;
    this.on = on;
    this.canvas = document.createElement("canvas");
    this.pacing = new Pacing();
    this.retry = new Retry(() => this.connect());
    this.fresh = false; // the video shows a frame that was not taken yet
    this.drawsRules = false; // the page does
    this.asked = []; // of rules that were sent and not answered yet
  }

  /** Play the camera. Rejects with words for the user. */
  async openCamera() {
    if (!navigator.mediaDevices?.getUserMedia)
      throw new Error("A browser gives its camera only to pages on https:// or on localhost.");
    const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: { ideal: "environment" } };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      throw new Error(cameraProblem(error));
    }
    if (this.closed) return stream.getTracks().forEach((track) => track.stop());
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => this.fail("The camera was disconnected."));
    this.stream = stream;
    this.front = track.getSettings().facingMode !== "environment";
    this.video.srcObject = stream;
    await this.play();
  }

  /** Play a file of the user's, without sending it anywhere: only the frames that are analysed leave the browser. */
  async openFile(file) {
    this.url = URL.createObjectURL(file);
    this.front = false;
    this.video.loop = true;
    this.video.src = this.url;
    await this.play().catch(() => {
      throw new Error(`This browser cannot play ${file.name}. The Video tab takes every format.`);
    });
  }

  async play() {
    this.on.state("connecting");
    await this.video.play();
    this.watchFrames();
    this.connect();
  }

  get mirror() {
    return this.front && settings.mirror;
  }

  /** Send what the user changed; it holds from the next frame on. Classes are hidden here, by the drawing. */
  configure() {
    if (this.asleep) return this.connect(); // which sends them
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const model = this.model?.model === settings.model ? this.model : null;
    const unknown = model?.unknown ? (settings.unknown ?? 0) : 0; // what another model was asked for does not stay
    const wanted = { model: settings.model, map_cells: settings.mapCells ?? 320, unknown, smooth: Boolean(model?.segmentation.length && settings.smooth) };
    if (model?.detection.length) Object.assign(wanted, { score: settings.score, iou: settings.iou, track: Boolean(settings.track) });
    this.socket.send(JSON.stringify(wanted));
    if (this.paused) this.again();
  }

  /** Lines and zones, see rules.js: this browser remembers them for its camera, and for files. */
  async readRules() {
    let drawn = {};
    try {
      drawn = JSON.parse(kept(`rules.${settings.source}`)) ?? {};
    } catch {
      // not what was kept
    }
    return { editable: true, drawn };
  }

  /** Have the server take rules. Before it is there that is as good as done: it is told when it is. */
  async writeRules(drawn, all) {
    keep(`rules.${settings.source}`, Object.keys(all).length ? JSON.stringify(all) : null);
    if (!this.ready || this.socket?.readyState !== WebSocket.OPEN) return {};
    this.socket.send(JSON.stringify({ draw: drawn }));
    return new Promise((done, refused) => this.asked.push({ done, refused }));
  }

  pause() {
    this.paused = true;
    this.video.pause();
    this.again();
    this.on.state("paused");
  }

  async resume() {
    this.paused = false;
    await this.video.play();
    if (this.socket?.readyState === WebSocket.OPEN) this.on.state("running");
    else this.connect();
  }

  /** Analyse the picture that stands still, so that boxes and masks lie on it exactly. */
  again() {
    this.fresh = true;
    this.pump();
  }

  close() {
    this.closed = true;
    this.retry.cancel();
    for (const timer of [this.later, this.next, this.watchdog]) clearTimeout(timer);
    this.socket?.close();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.video.pause();
    this.video.srcObject = null;
    this.video.loop = false;
    this.video.removeAttribute("src");
    this.video.load();
    if (this.url) URL.revokeObjectURL(this.url);
  }

  fail(message) {
    if (this.closed) return;
    this.close();
    this.on.state("failed", message);
  }

  connect() {
    this.retry.cancel();
    clearTimeout(this.later);
    this.asleep = false;
    if (this.closed) return;
    if (!window.WebSocket || !window.ArrayBuffer) return this.fail("This browser has no binary WebSockets.");
    const socket = new WebSocket(address("v1/webcam", true));
    socket.binaryType = "arraybuffer";
    const before = this.socket;
    this.socket = socket;
    before?.close(); // there, if the user resumes while it is being opened
    this.pacing.forget();
    socket.onopen = () => this.configure();
    socket.onmessage = ({ data }) => {
      if (this.closed || socket !== this.socket) return;
      if (data instanceof ArrayBuffer) this.onResult(unpack(data));
      else this.onText(JSON.parse(data));
      this.pump();
    };
    socket.onclose = ({ code, reason }) => {
      if (this.closed || socket !== this.socket) return;
      clearTimeout(this.watchdog);
      this.answerRules({});
      const end = webcamEnd(code, reason);
      if (end === "refused") return this.fail(reason || "The server refused the connection.");
      this.asleep = end === "idle"; // paused, or in a tab that nobody looks at
      if (this.asleep) return;
      this.on.state(this.retry.tries || this.ready ? "reconnecting" : "connecting", reason);
      this.ready = false;
      this.retry.later();
    };
  }

  onText(message) {
    if (message.type === "ready") {
      const other = this.model?.model !== message.model;
      if (other) this.pacing.forget(); // what is still to come of those is not this model's
      this.model = message;
      if (other && (message.detection.length || message.unknown)) this.configure(); // thresholds mean something only now
      this.ready = true;
      this.retry.worked();
      this.on.model(message);
      if (other || this.told !== this.socket) this.on.rules();
      this.told = this.socket;
      this.on.state(this.paused ? "paused" : "running");
      if (this.paused) this.again();
    } else if (message.type === "readings") {
      this.on.readings(message.rules, message.active);
    } else if (message.type === "drawn") {
      this.asked.shift()?.done(message);
    } else if (message.type === "refused") {
      this.asked.shift()?.refused(Object.assign(new Error(message.error), { rule: message.rule }));
    } else if (message.type === "problem") {
      this.on.problem(message.problem);
    } else if (message.type === "dropped") {
      this.pacing.refused(message.frame);
    } else if (message.frame !== null) {
      this.pacing.refused(message.frame);
      this.on.error(message.error);
    } else if (this.ready) this.on.error(message.error); // what held before still does
    else if (message.retry_after_s) this.later = setTimeout(() => this.configure(), 1000 * message.retry_after_s);
    else this.fail(message.error);
  }

  /** The connection has ended: what was sent over it has come to nothing, and is sent again over the next one. */
  answerRules(answer) {
    for (const { done } of this.asked.splice(0)) done(answer);
  }

  onResult(result) {
    const taken = this.pacing.answered(result.number, result.timings, performance.now());
    if (taken === undefined) return;
    result.model = this.model; // what its numbers mean
    this.on.result(result, taken);
  }

  /** Note every frame that the video shows; it is taken when there is room for it. */
  watchFrames() {
    const video = this.video;
    const seen = (count) => {
      if (this.closed) return;
      this.pacing.shown(count, performance.now());
      this.fresh = true;
      if (this.asleep && !this.paused) this.connect();
      this.pump();
    };
    if (video.requestVideoFrameCallback) {
      const next = () =>
        video.requestVideoFrameCallback((_, { presentedFrames }) => {
          seen(presentedFrames);
          if (!this.closed) next();
        });
      next();
    } else {
      let shown = -1;
      const next = () =>
        requestAnimationFrame(() => {
          if (video.currentTime !== shown && !video.paused) seen(this.pacing.presented + 1);
          shown = video.currentTime;
          if (!this.closed) next();
        });
      next();
    }
  }

  /** Take and send a frame if one is there and there is room for it. */
  pump() {
    if (this.closed || !this.ready || !this.fresh || !this.video.videoWidth) return;
    if (this.socket.readyState !== WebSocket.OPEN) return;
    const { pacing } = this;
    const now = performance.now();
    const wait = pacing.wait(now);
    if (wait > 0) {
      clearTimeout(this.next);
      if (wait < Infinity) this.next = setTimeout(() => this.pump(), wait);
      return;
    }
    this.fresh = false;
    const number = pacing.next();
    let message;
    try {
      message = this.take(number);
    } catch (error) {
      return this.on.error(`Cannot take the picture: ${error.message}`);
    }
    pacing.sent(number, now, performance.now());
    const { socket } = this;
    socket.send(message);
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => pacing.inFlight.size && socket === this.socket && socket.close(), ANSWER_MS);
  }

  /**
   * The number and the picture as JPEG, no larger than the network can use. toDataURL() gives it at once, in a
   * millisecond or two; toBlob() waits until the browser is idle, four milliseconds at best and a second at worst.
   */
  take(number) {
    const { videoWidth, videoHeight } = this.video;
    const [width, height] = sentSize([videoWidth, videoHeight], this.model.size);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context ??= this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.context.drawImage(this.video, 0, 0, width, height);
    const url = this.canvas.toDataURL("image/jpeg", QUALITY);
    if (!url.startsWith("data:image/jpeg")) throw new Error("this browser cannot encode JPEG");
    const text = atob(url.slice(url.indexOf(",") + 1));
    const message = new Uint8Array(4 + text.length);
    new DataView(message.buffer).setUint32(0, number, true);
    for (let i = 0; i < text.length; i++) message[4 + i] = text.charCodeAt(i);
    return message;
  }
}
