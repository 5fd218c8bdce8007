// Live video in a <video>: how to stay close to the newest picture.

const BEHIND_S = 1.0; // play from the newest picture again where the player is further behind
const KEPT_S = 10; // of played video

/** The type of a segment as Media Source Extensions want it: with quotes round the codecs. */
export function quoted(mime) {
  return mime.replace(/codecs=([^"]+)$/, 'codecs="$1"');
}

/**
 * What to do with a buffer whose ranges are [[start, end], ...] in seconds: {seek: where to play on, or null; forget:
 * [from, to] to remove, or null}. What is played lies in the last range; what is old goes in large steps.
 */
export function keepUp(time, ranges) {
  const [first] = ranges[0];
  const [start, end] = ranges[ranges.length - 1];
  const seek = time < start || end - time > BEHIND_S ? Math.max(start, end - 0.1) : null;
  return { seek, forget: end - first > 2 * KEPT_S ? [first, end - KEPT_S] : null };
}
