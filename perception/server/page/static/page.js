// What all tabs share: the settings that the Gradio controls hold, addresses, downloads, one line of text.

/** The controls write into window.perception.settings and call window.perception.changed, whichever is there first. */
const shared = (globalThis.perception ??= {});
shared.settings ??= {};
const listeners = new Set();
shared.changed = (changes) => listeners.forEach((listener) => listener(changes));

export const settings = shared.settings;

/** Call a function with the settings that change. */
export function onSettings(listener) {
  listeners.add(listener);
}

/** Change settings from the page itself. */
export function change(changes) {
  Object.assign(settings, changes);
  shared.changed(changes);
}

/** Fill in what no control has set yet. */
export function defaults(values) {
  for (const [name, value] of Object.entries(values)) settings[name] ??= value;
}

/** Address of a route of this server, whatever path the page is served under. */
export function address(path, websocket = false, base = document.baseURI) {
  const url = new URL(path, base);
  if (websocket) url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

/** The settings as OPTIONS of the routes: score, iou, view and unknown only where the model has such. */
export function options(model, { legend = settings.show.includes("Legend"), rules = true } = {}) {
  const chosen = {
    opacity: settings.opacity,
    masks: settings.show.includes("Masks"),
    boxes: settings.show.includes("Boxes"),
    labels: settings.show.includes("Labels"),
    legend,
  };
  if (!rules) chosen.rules = false;
  if (settings.view === "panoptic" && model?.views?.includes("panoptic")) chosen.view = settings.view;
  if (model?.unknown) chosen.unknown = settings.unknown ?? 0;
  if (model?.detection?.length) Object.assign(chosen, { score: settings.score, iou: settings.iou, track: Boolean(settings.track) });
  if (model?.segmentation?.length && settings.smooth) chosen.smooth = true;
  if (model && settings.hidden.size) chosen.classes = classNames(model).filter((name) => !settings.hidden.has(name));
  return chosen;
}

/** Names as a row of CSV: one that contains a comma stands in double quotes. */
export function nameRow(names) {
  return names.map((name) => (/^\s|[",\n\r]|\s$/.test(name) ? `"${name.replaceAll('"', '""')}"` : name)).join(",");
}

/** OPTIONS as query parameters. */
export function query(chosen) {
  return new URLSearchParams(Object.entries(chosen).map(([name, value]) => [name, Array.isArray(value) ? nameRow(value) : String(value)]));
}

/** Names of all classes of a model, each once. */
export function classNames(model) {
  return [...new Set([...model.segmentation, ...model.detection, ...model.classification].map((c) => c.name))];
}

/** fetch(), with the server's own line of text as the error where it refuses, its `status`, and the `rule` it is about. */
export async function request(path, init) {
  let response;
  try {
    response = await fetch(address(path), { credentials: "same-origin", ...init });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (response.ok) return response;
  const retry = response.headers.get("Retry-After");
  // An answer that is not JSON: the status has to do.
  const { error: text = `The server answered ${response.status}.`, rule } = await response.json().catch(() => ({}));
  throw Object.assign(new Error(retry ? `${text} (again in ${retry} s)` : text), { status: response.status, rule });
}

/** Keep a text in this browser under a name, over reloads; null forgets it. Where that is not allowed, nothing is kept. */
export function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(`perception.${name}`);
    else localStorage.setItem(`perception.${name}`, text);
  } catch {
    // a browser that keeps nothing
  }
}

/** The text that was kept under a name, or null. */
export function kept(name) {
  try {
    return localStorage.getItem(`perception.${name}`);
  } catch {
    return null;
  }
}

/** Offer a Blob or an address as a file to keep. */
export function download(what, name) {
  const link = document.createElement("a");
  link.href = what instanceof Blob ? URL.createObjectURL(what) : what;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  if (what instanceof Blob) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show a Blob in an <img>; the address of the one before is given back. */
export function show(image, blob) {
  if (image.src) URL.revokeObjectURL(image.src);
  return (image.src = URL.createObjectURL(blob));
}

/** A name for a file made now: perception-2026-11-22-141503.png */
export function fileName(ending, t = new Date()) {
  const pad = (n) => String(n).padStart(2, "0");
  const day = [t.getFullYear(), pad(t.getMonth() + 1), pad(t.getDate())].join("-");
  return `perception-${day}-${pad(t.getHours())}${pad(t.getMinutes())}${pad(t.getSeconds())}.${ending}`;
}

/** Bytes as people read them: 812 bytes, 3.4 MB. */
export function fileSize(bytes) {
  let [value, i] = [bytes, 0];
  while (value >= 999.95 && i < 3) [value, i] = [value / 1000, i + 1];
  return i ? `${value.toFixed(1).replace(/\.0$/, "")} ${["", "kB", "MB", "GB"][i]}` : `${bytes} byte${bytes === 1 ? "" : "s"}`;
}

/** Seconds as people read them: 0:07, 12:34, 1:02:03. */
export function clock(seconds) {
  const [whole, pad] = [Math.floor(seconds), (n) => String(n).padStart(2, "0")];
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
}

/** An element of the page, by selectors, with text that is never taken for HTML. */
export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
