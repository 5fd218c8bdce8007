// How far a job is: the bar (0 to 1, undefined: nobody knows) and a line of text. Its first quarter is the upload.

const UPLOAD = 0.25;

export function uploadProgress(loaded, total) {
  const part = total > 0 ? loaded / total : 1; // nothing to send is sent
  return { part: UPLOAD * part, text: `Uploading: ${Math.round(100 * part)}%` };
}

const count = (frames) => `${frames} frame${frames === 1 ? "" : "s"}`;

/** Of a job as the server describes it, queued or running. */
export function jobProgress({ name, state, progress: { frames, total } }) {
  const far = state === "running" ? total ? `${frames} of ${count(total)}` : count(frames) : "waiting for other jobs";
  return { part: total ? UPLOAD + (1 - UPLOAD) * Math.min(frames / total, 1) : undefined, text: `${name}: ${far}` };
}

/** Of a job that is done. */
export function jobDone({ name, fps, progress: { frames } }) {
  return `${name}: ${count(frames)}${fps ? ` at ${fps.toFixed(1)} a second` : ""}`;
}
