// Connections that are lost: what their end means, and when to try again.

const REFUSED = 1008; // close codes of RFC 6455 and its registry
const TRY_AGAIN_LATER = 1013;
const FIRST_MS = 500;
const MOST_MS = 10_000;

/** Wait before the n-th try (from 0): twice as long each time, at most 10 s, and never all clients at once. */
export function backOff(n, random = Math.random) {
  return Math.min(FIRST_MS * 2 ** n, MOST_MS) * (0.5 + random() / 2);
}

/** Calls a function later, later each time until a try has worked. At most one call waits. */
export class Retry {
  /** @param again what is called; @param clock setTimeout() and clearTimeout(); @param random as Math.random(). */
  constructor(again, clock = globalThis, random = Math.random) {
    this.again = again;
    this.clock = clock;
    this.random = random;
    this.tries = 0; // since one worked
  }

  later() {
    this.cancel();
    this.timer = this.clock.setTimeout(() => this.again(), backOff(this.tries++, this.random));
  }

  cancel() {
    this.clock.clearTimeout(this.timer);
  }

  worked() {
    this.tries = 0;
  }
}

/** What the end of a webcam's socket means: "refused", "idle" (connect when there is something to say), or "lost". */
export function webcamEnd(code, reason) {
  if (code === REFUSED) return "refused";
  return code === TRY_AGAIN_LATER && reason.startsWith("silent") ? "idle" : "lost";
}

/** What the end of a stream's socket means: "refused", "over" (the source itself has ended or failed), or "lost". */
export function streamEnd(code, state) {
  if (code === REFUSED) return "refused";
  return state === "ended" || state === "failed" ? "over" : "lost";
}
