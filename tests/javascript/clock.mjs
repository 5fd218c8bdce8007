// A clock that goes when it is told to, with the timers of a browser.

export class Clock {
  constructor() {
    this.now = 0;
    this.timers = new Map();
    this.last = 0;
  }

  setTimeout(call, ms) {
    this.timers.set(++this.last, { at: this.now + ms, call });
    return this.last;
  }

  clearTimeout(id) {
    this.timers.delete(id);
  }

  /** Go on until then; timers are called on the way, each at its time. */
  until(time) {
    for (;;) {
      const [id, next] = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!next || next.at > time) break;
      this.timers.delete(id);
      this.now = next.at;
      next.call();
    }
    this.now = time;
  }
}
