// A video file of what the browser itself shows: the camera's picture with the results over it.

const RATE = 30;
const MP4 = ["video/mp4;codecs=avc1.640028", "video/mp4;codecs=avc1.42E01F", "video/mp4"];
const WEBM = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

/** The type that a browser's recorder can make, MP4 where it can; undefined where it makes none. */
export function recordingType() {
  return [...MP4, ...WEBM].find((type) => window.MediaRecorder?.isTypeSupported(type));
}

/** Records a function's drawing, which is called for each picture with a 2D context of the given size. */
export class Recorder {
  constructor(width, height, draw) {
    this.type = recordingType();
    if (!this.type) throw new Error("This browser cannot record video.");
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { width: width & ~1, height: height & ~1 }); // H.264 wants even sides
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.draw = draw;
    this.parts = [];
    this.started = performance.now();
    this.tick();
    this.stream = this.canvas.captureStream(RATE);
    this.recorder = new MediaRecorder(this.stream, { mimeType: this.type, videoBitsPerSecond: 6_000_000 });
    this.recorder.ondataavailable = ({ data }) => data.size && this.parts.push(data);
    this.recorder.start(1000);
    this.timer = setInterval(() => this.tick(), 1000 / RATE);
  }

  tick() {
    this.draw(this.context);
  }

  get ending() {
    return this.type.startsWith("video/mp4") ? "mp4" : "webm";
  }

  /** How much there is so far: {seconds, bytes}. */
  async progress() {
    return { seconds: (performance.now() - this.started) / 1000, bytes: this.parts.reduce((sum, part) => sum + part.size, 0) };
  }

  /** The file, as a Blob. */
  async stop() {
    clearInterval(this.timer);
    const stopped = new Promise((done) => (this.recorder.onstop = done));
    this.recorder.stop();
    await stopped;
    this.stream.getTracks().forEach((track) => track.stop());
    return new Blob(this.parts, { type: this.type.split(";")[0] });
  }
}
