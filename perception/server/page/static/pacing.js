// When to send the next frame of a video to the server.
//
// One frame is in flight. Where its round trip is longer than from one frame of the video to the next, a second one is
// sent so that it arrives when the engine is about to be free: that keeps the engine busy. Where it is not, a second one
// would but compete with the first. Times are milliseconds of any one clock.

const LATE = 1.2; // a round trip of more frames than this asks for a second one in flight
const ALONE_EVERY = 32; // frames, of which one goes alone, to see whether that would do
const LONGEST_FRAME_MS = 500; // longer between two frames is a pause

/** A running mean, of about the last ten values; 0 is none yet. */
const mean = (old, value) => old + (value - old) * (old ? 0.1 : 1);

export class Pacing {
  constructor() {
    this.inFlight = new Map(); // number of a frame -> {taken, alone}: when, and whether none was in flight then
    this.number = 0; // of the next frame
    this.engineMs = 0; // how long the engine is busy with a frame, a running mean like those below
    this.aloneMs = 0; // round trip of a frame that goes alone; quicker to fall than to rise
    this.frameMs = 0; // from one frame of the video to the next
    this.presented = 0; // frames that the video showed
    this.analysed = 0;
    this.lastSent = NaN;
    this.lastShown = NaN;
    this.first = null; // the video's own count when the first frame came
  }

  /** Frames that were shown and neither analysed nor are about to be. */
  get dropped() {
    return Math.max(this.presented - this.analysed - this.inFlight.size, 0);
  }

  /** The video shows a frame; count is the video's own, of all frames that it has shown so far. */
  shown(count, now) {
    this.first ??= count - 1;
    const passed = (now - this.lastShown) / (count - this.first - this.presented);
    if (passed < LONGEST_FRAME_MS) this.frameMs = mean(this.frameMs, passed);
    this.lastShown = now;
    this.presented = count - this.first;
  }

  /** How long to wait before a frame may be sent: 0, not at all; Infinity, until an answer comes. */
  wait(now) {
    if (this.inFlight.size === 0) return 0;
    if (this.inFlight.size > 1 || !this.engineMs) return Infinity;
    if (this.aloneMs < LATE * this.frameMs || this.number % ALONE_EVERY === 0) return Infinity;
    return Math.max(this.lastSent + this.engineMs - now, 0);
  }

  /** A number for a frame that is about to be sent, a u32. */
  next() {
    return this.number++ >>> 0;
  }

  /** A frame was sent; taken is when its picture was. */
  sent(number, taken, now) {
    this.inFlight.set(number, { taken, alone: this.inFlight.size === 0 });
    this.lastSent = now;
  }

  /** The result of a frame has come. Gives when its picture was taken; undefined where nobody waits for it any more. */
  answered(number, { resize, infer, postprocess }, now) {
    const { taken, alone } = this.inFlight.get(number) ?? {};
    if (taken === undefined) return undefined;
    for (const other of this.inFlight.keys()) if (other <= number) this.inFlight.delete(other);
    this.engineMs = mean(this.engineMs, resize + infer + postprocess);
    const trip = now - taken;
    if (alone) this.aloneMs = trip < this.aloneMs ? (trip + this.aloneMs) / 2 : mean(this.aloneMs, trip); // not for a hiccup
    this.analysed += 1;
    return taken;
  }

  /** No result will come of a frame. */
  refused(number) {
    this.inFlight.delete(number);
  }

  /** No result will come of what is in flight. */
  forget() {
    this.inFlight.clear();
  }
}
