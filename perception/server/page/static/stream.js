// A source that the server owns, annotated there: H.264 through Media Source Extensions, or MJPEG where there are none.
// See perception/server/routes/streams.py and perception/server/viewers.

import { address, options, query, request, settings } from "./page.js";
import { keepUp, quoted } from "./playback.js";
import { Retry, streamEnd } from "./reconnect.js";

const H264 = 'video/mp4; codecs="avc1.64001f"';

const LONGEST_QUERY = 4000; // characters; a server's limit for a line is twice that: a thousand classes are longer

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;

/** Whether this browser plays H.264 that comes in pieces. */
export const playsSegments = () => Boolean(Source?.isTypeSupported?.(H264));

export class StreamView {
  /**
   * @param video the <video>, for H.264
   * @param image the <img>, for MJPEG
   * @param on {state(name, message), status(status), error(text), size(width, height)}
   */
  constructor(video, image, on) {
    this.video = video;
    this.image = image;
    this.on = on;
    this.retry = new Retry(() => this.reopen());
    this.segments = [];
    this.model = null; // its classes, for OPTIONS
    this.drawsRules = true; // the server does
    this.rulesShown = true;
  }

  /** Open a source by its name, URL or camera number. Rejects with the server's words. */
  async open(source, model) {
    this.source = source;
    this.model = model;
    this.on.state("connecting");
    const response = await request("v1/streams", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ source, model: settings.model }),
    });
    const status = await response.json();
    if (this.closed) return;
    this.id = status.id;
    this.onStatus(status);
    if (!this.closed && !this.paused) this.start(); // a status may close it; it may be opened again meanwhile
  }

  get wanted() {
    return options(this.model, { legend: false, rules: this.rulesShown }); // the page has a legend of its own
  }

  /** Have lines and zones drawn by the server, or not while the page does. */
  showRules(shown) {
    this.rulesShown = shown;
    this.configure();
  }

  /** Lines and zones of the source, see rules.js. */
  async readRules() {
    return this.rulesIn(await request(`v1/streams/${this.id}/rules`));
  }

  async writeRules(drawn) {
    const headers = { "Content-Type": "application/json", ...(this.rulesTag && { "If-Match": this.rulesTag }) };
    return this.rulesIn(await request(`v1/streams/${this.id}/rules`, { method: "PUT", headers, body: JSON.stringify(drawn) }));
  }

  async rulesIn(response) {
    this.rulesTag = response.headers.get("ETag");
    return response.json();
  }

  /** Begin to show: by Media Source Extensions where the browser has them. */
  start() {
    if (playsSegments() && settings.transport !== "mjpeg") this.connect();
    else this.showImages();
  }

  configure() {
    if (!this.id || this.paused) return;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ options: this.wanted }));
    else if (!this.image.hidden) this.showImages();
  }

  pause() {
    this.paused = true;
    this.retry.cancel();
    if (!this.image.hidden) this.freeze();
    this.video.pause();
    this.socket?.close();
    this.on.state("paused");
  }

  resume() {
    this.paused = false;
    this.retry.worked();
    this.start();
  }

  close() {
    this.closed = true;
    this.retry.cancel();
    clearInterval(this.polling);
    this.socket?.close();
    this.image.removeAttribute("src");
    this.image.hidden = true;
    this.dropSource();
  }

  /** The newest annotated picture, as PNG. */
  async snapshot() {
    return (await request(`v1/streams/${this.id}/snapshot?${query(options(this.model))}`)).blob();
  }

  /** Start an MP4 on the server: {progress() how much there is, stop() ends it and gives the MP4's address}. */
  async record() {
    const started = await request(`v1/streams/${this.id}/recordings?${query(options(this.model))}`, { method: "POST" });
    const { id } = await started.json();
    const left = () => navigator.sendBeacon(address(`v1/recordings/${id}/stop`)); // or it goes on for an hour
    window.addEventListener("pagehide", left);
    const stop = async () => {
      window.removeEventListener("pagehide", left);
      const done = await (await request(`v1/recordings/${id}/stop`, { method: "POST" })).json();
      if (done.state === "failed") throw new Error(`The recording failed: ${done.message}`);
      return address(`v1/recordings/${id}/video`).href;
    };
    return { stop, progress: async () => (await request(`v1/recordings/${id}`)).json() };
  }

  onStatus(status) {
    if (this.closed) return;
    if (status.width) this.on.size(status.width, status.height);
    this.last = status.state;
    this.on.status(status);
    if (!this.paused) this.on.state(status.state, status.message);
  }

  // H.264

  connect() {
    this.retry.cancel();
    this.image.hidden = true;
    this.video.hidden = false;
    const chosen = String(query(this.wanted));
    const fits = chosen.length <= LONGEST_QUERY;
    const socket = new WebSocket(address(`v1/streams/${this.id}/video?${fits ? chosen : ""}`, true));
    socket.binaryType = "arraybuffer";
    if (!fits) socket.onopen = () => socket === this.socket && this.configure();
    const before = this.socket;
    this.socket = socket;
    before?.close(); // there, if it is opened again while it is asked for anew
    socket.onmessage = ({ data }) => {
      if (this.closed || socket !== this.socket) return;
      if (data instanceof ArrayBuffer) {
        this.segments.push(data);
        this.feed();
        return;
      }
      const message = JSON.parse(data);
      if (message.type === "video") this.onVideo(message);
      else if (message.type === "status") this.onStatus(message);
      else if (message.error) this.on.error(message.error);
    };
    socket.onclose = ({ reason, code }) => {
      if (this.closed || this.paused || socket !== this.socket) return;
      const end = streamEnd(code, this.last);
      if (end === "refused") this.on.state("failed", reason);
      if (end !== "lost") return;
      this.on.state("reconnecting", reason);
      this.retry.later();
    };
  }

  /** The server may have closed the stream meanwhile, or been started anew: ask for it again. */
  async reopen() {
    if (this.closed || this.paused) return;
    try {
      await this.open(this.source, this.model);
    } catch (error) {
      if (this.closed) return;
      this.on.state("reconnecting", error.message);
      this.retry.later();
    }
  }

  /** A new initialisation segment is about to come: of the first video, or of one that is drawn or sized otherwise. */
  onVideo({ mime, width, height }) {
    const type = quoted(mime);
    this.retry.worked();
    this.on.size(width, height);
    if (this.fed === this.socket && this.mediaSource?.readyState === "open") {
      this.segments.push({ type }); // what came before it is played first
      return;
    }
    this.fed = this.socket;
    this.segments = [];
    this.dropSource();
    const source = new Source();
    this.mediaSource = source;
    this.video.disableRemotePlayback = true; // ManagedMediaSource insists
    this.url = URL.createObjectURL(source);
    this.video.src = this.url;
    source.addEventListener("sourceopen", () => {
      if (this.closed || this.mediaSource !== source) return;
      try {
        this.buffer = source.addSourceBuffer(type);
      } catch (error) {
        this.on.error(`This browser does not play ${type}; pictures are shown instead.`);
        const { socket } = this;
        this.socket = null; // or its end would be a lost connection
        socket.close();
        this.showImages();
        return;
      }
      this.buffer.addEventListener("updateend", () => this.feed());
      this.feed();
    });
  }

  feed() {
    const { buffer, video } = this;
    if (!buffer || buffer.updating || this.mediaSource.readyState !== "open") return;
    try {
      if (buffer.buffered.length && this.keepUp(buffer.buffered)) return;
      const segment = this.segments.shift();
      if (segment?.type) {
        buffer.changeType(segment.type);
        this.feed();
      } else if (segment) buffer.appendBuffer(segment);
    } catch (error) {
      this.segments = [];
      this.socket.close(); // begins anew, with an empty buffer
      this.on.error(`Playback failed: ${error.message}`);
    }
    if (video.paused && !this.paused && buffer.buffered.length) video.play().catch(() => {});
  }

  /** Stay close to the newest picture and forget what was played; whether the buffer is busy with that. */
  keepUp(ranges) {
    const spans = Array.from({ length: ranges.length }, (_, i) => [ranges.start(i), ranges.end(i)]);
    const { seek, forget } = keepUp(this.video.currentTime, spans);
    if (seek !== null) this.video.currentTime = seek;
    if (forget) this.buffer.remove(...forget);
    return Boolean(forget);
  }

  dropSource() {
    this.buffer = this.mediaSource = null;
    if (!this.url) return;
    URL.revokeObjectURL(this.url);
    this.url = null;
    this.video.removeAttribute("src");
    this.video.load();
  }

  // MJPEG

  showImages() {
    this.video.hidden = true;
    this.image.hidden = false;
    clearInterval(this.polling);
    const lost = (reason) => {
      if (this.closed || this.paused || !this.image.src) return;
      clearInterval(this.polling);
      this.freeze(); // asked for the same address again, the browser takes the picture that is there
      this.on.state("reconnecting", reason);
      this.retry.later();
    };
    this.image.onerror = () => lost();
    this.image.src = address(`v1/streams/${this.id}/mjpeg?${query(this.wanted)}`);
    const polling = setInterval(async () => {
      if (this.paused) return;
      try {
        this.onStatus(await (await request(`v1/streams/${this.id}`)).json());
        this.retry.worked();
      } catch (error) {
        // A picture that was shown and then stands still is no error to the browser: the server is gone, or the stream.
        const gone = error.status === undefined || error.status === 404;
        if (gone && polling === this.polling) lost(error.message);
      }
    }, 1000);
    this.polling = polling;
  }

  /** Keep the picture that is shown, without the connection that brings new ones. */
  freeze() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    if (!width) return this.image.removeAttribute("src"); // none came yet
    const still = Object.assign(document.createElement("canvas"), { width, height });
    still.getContext("2d").drawImage(this.image, 0, 0);
    this.image.src = still.toDataURL("image/jpeg", 0.92);
  }
}
