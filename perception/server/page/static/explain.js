// Part of the Picture tab: what the model looked at, for a class that is in view or at a point that is clicked.

import { pointInPicture } from "./geometry.js";
import { make, query, request, settings, show } from "./page.js";

const LEAST_SHARE = 0.005; // a class with a smaller part of the picture is not offered
const TASKS = { classification: "whole picture", detection: "boxes", segmentation: "pixels" };

export class Explain {
  /** @param element the part; nothing is explained where something is lacking, and the page says what; @param pictures <img> elements whose points can be clicked; @param known of the page. */
  constructor(element, pictures, known) {
    this.element = element;
    this.known = known;
    this.parts = Object.fromEntries(
      ["what", "method", "ask", "cancel", "asked", "heat"].map((name) => [name, element.querySelector(`.pv-${name}`)]),
    );
    const { parts } = this;
    for (const method of known.methods) parts.method.append(make("option", "", method));
    parts.method.value = "smoothgrad";
    parts.ask.onclick = () => this.ask();
    parts.cancel.onclick = () => this.abort?.abort();
    element.addEventListener("toggle", () => this.opened());
    for (const picture of pictures) picture.addEventListener("click", (event) => this.clicked(picture, event));
    this.pictures = pictures;
  }

  /** A picture that was predicted, a file, and what was seen in it, as JSON; null: there is none now. */
  about(file, seen) {
    if (file !== this.file || settings.model !== this.model) {
      this.abort?.abort();
      this.parts.heat.hidden = true;
      this.note("Or click a point in the picture.");
    }
    this.file = file;
    this.model = settings.model;
    this.element.hidden = !file || Boolean(this.known.lacking);
    if (file) this.list(seen);
    this.opened();
  }

  get ready() {
    return Boolean(this.file) && this.element.open && !this.known.lacking;
  }

  opened() {
    for (const picture of this.pictures) picture.classList.toggle("pv-points", this.ready);
  }

  /** Offer the classes that are in view. */
  list(seen) {
    const names = {
      classification: (seen.labels ?? []).map((label) => label.class),
      detection: [...new Set((seen.detections ?? []).map((detection) => detection.class))],
      segmentation: Object.entries(seen.shares ?? {})
        .filter(([, share]) => share >= LEAST_SHARE)
        .sort(([, a], [, b]) => b - a)
        .map(([name]) => name),
    };
    const { what } = this.parts;
    const before = what.value;
    what.replaceChildren(new Option("the surest", ""));
    for (const [task, words] of Object.entries(TASKS)) {
      if (!names[task].length) continue;
      const group = make("optgroup");
      group.label = words;
      group.append(...names[task].map((name) => new Option(name, JSON.stringify({ task, class_name: name }))));
      what.append(group);
    }
    what.value = before;
    if (what.selectedIndex < 0) what.selectedIndex = 0;
  }

  clicked(picture, event) {
    if (!this.ready || this.abort) return;
    const shown = { width: picture.clientWidth, height: picture.clientHeight };
    const { x, y } = pointInPicture([event.offsetX, event.offsetY], shown, { width: picture.naturalWidth, height: picture.naturalHeight });
    this.ask({ x: x.toFixed(2), y: y.toFixed(2) });
  }

  async ask(point) {
    const { parts } = this;
    const chosen = parts.what.value ? JSON.parse(parts.what.value) : {};
    // A point without a class is about what is there, and every point has a pixel.
    if (point && !chosen.task && this.known.models[settings.model]?.segmentation.length) chosen.task = "segmentation";
    const abort = (this.abort = new AbortController());
    this.busy(true);
    this.note("Explaining; this may take a while …");
    try {
      const asked = query({ ...chosen, ...point, method: parts.method.value, model: settings.model });
      const headers = { "Content-Type": "application/octet-stream" };
      const answer = await request(`v1/explain?${asked}`, { method: "POST", headers, body: this.file, signal: abort.signal });
      const picture = await answer.blob();
      if (abort.signal.aborted) return;
      show(parts.heat.querySelector("img"), picture);
      const what = decodeURIComponent(answer.headers.get("X-Explained"));
      parts.heat.querySelector("figcaption").textContent = `${parts.method.value}: ${what}`;
      parts.heat.hidden = false;
      this.note("Or click a point in the picture.");
    } catch (error) {
      if (abort.signal.aborted) this.note("Cancelled.");
      else this.note(error.message);
    } finally {
      if (this.abort === abort) {
        this.abort = null;
        this.busy(false);
      }
    }
  }

  busy(running) {
    this.parts.ask.disabled = running;
    this.parts.cancel.hidden = !running;
  }

  note(text) {
    this.parts.asked.textContent = text;
  }
}
