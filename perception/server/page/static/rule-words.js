// What rules say, in words: of the numbers that the server gives, see "rules" in docs/outputs.md.

import { clock } from "./page.js";

const MOST_STAYS = 4; // of a zone, in the list

const sum = (classes) => Object.values(classes).reduce((total, count) => total + count, 0);

/** Seconds as people read them: 7 s, 1:05. */
export const stay = (seconds) => (seconds < 60 ? `${Math.floor(seconds)} s` : clock(seconds));

/** A few words for the picture: "gate: north 5, south 2". */
export function label(name, { crossed, inside, value }) {
  if (crossed) return `${name}: ${Object.entries(crossed).map(([direction, classes]) => `${direction} ${sum(classes)}`).join(", ")}`;
  if (inside !== undefined) return `${name}: ${inside}`;
  return value === undefined ? name : `${name} ${Math.round(100 * value)}%`;
}

/** All of it for the list: a row of texts. */
export function sentences({ crossed, inside, entered = {}, left = {}, staying = {}, value, holds }) {
  if (crossed) {
    return Object.entries(crossed).map(([direction, classes]) => {
      const by = Object.entries(classes).map(([name, count]) => `${name} ${count}`);
      return `${direction} ${sum(classes)}${by.length ? ` (${by.join(", ")})` : ""}`;
    });
  }
  if (inside !== undefined) {
    const longest = Object.entries(staying).sort((a, b) => b[1] - a[1]);
    const stays = longest.slice(0, MOST_STAYS).map(([track, seconds]) => `#${track} ${stay(seconds)}`);
    if (longest.length > MOST_STAYS) stays.push("…");
    return [`${inside} inside`, ...(stays.length ? [stays.join(", ")] : []), `${sum(entered)} entered`, `${sum(left)} left`];
  }
  return value === undefined ? [] : [`${Math.round(100 * value)}%`, holds ? "holds" : "does not hold"];
}

/** Whether something is going on at a rule, where the server does not say so. */
export const isActive = ({ inside = 0, holds = false }) => inside > 0 || holds;
