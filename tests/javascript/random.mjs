// Numbers that are the same every time.

/** A function that gives whole numbers from 0 to below n (xorshift32). */
export function random(seed) {
  let state = (seed * 2654435761) >>> 0 || 1;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % n;
  };
}
