// The Picture tab: one picture, before and after, drawn anew when a setting changes.

import { onFile } from "./drop.js";
import { Explain } from "./explain.js";
import { defaults, fileName, onSettings, options, query, request, settings, show } from "./page.js";

const SETTLE_MS = 250;

export function mount(element, known) {
  defaults({ model: known.default, hidden: new Set() });
  new PictureTab(element, known);
}

class PictureTab {
  constructor(element, known) {
    this.known = known;
    const find = (name) => element.querySelector(`.pv-${name}`);
    this.parts = Object.fromEntries(
      ["drop", "file", "note", "pair", "before", "after", "get-image"].map((name) => [name, find(name)]),
    );
    this.explain = new Explain(element.querySelector(".pv-explain"), [this.parts.before, this.parts.after], known);
    onFile(this.parts.drop, this.parts.file, (file) => this.choose(file));
    element.ownerDocument.addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (file?.type.startsWith("image/") && element.offsetParent) this.choose(file);
    });
    onSettings(() => {
      clearTimeout(this.timer);
      if (this.file) this.timer = setTimeout(() => this.predict(), SETTLE_MS);
    });
  }

  choose(file) {
    this.file = file;
    this.parts.drop.querySelector("b").textContent = file.name;
    show(this.parts.before, file);
    this.parts.pair.hidden = true;
    this.explain.about(null);
    this.predict();
  }

  async predict() {
    const file = this.file;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const chosen = query({ ...options(this.known.models[settings.model]), model: settings.model });
    this.note("Predicting …");
    try {
      const started = performance.now();
      const headers = { "Content-Type": "application/octet-stream", Accept: "image/png" };
      const answer = await request(`v1/predict?${chosen}`, { method: "POST", headers, body: file, signal: abort.signal });
      const annotated = await answer.blob();
      if (abort.signal.aborted) return;
      const link = this.parts["get-image"];
      link.href = show(this.parts.after, annotated);
      link.download = fileName("png");
      this.parts.pair.hidden = link.parentElement.hidden = false;
      this.note(`${Math.round(performance.now() - started)} ms`);
      this.explain.about(file);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.parts.pair.hidden = this.parts["get-image"].parentElement.hidden = true;
      this.note(error.message);
      this.explain.about(null);
    }
  }

  note(text) {
    this.parts.note.textContent = text;
  }
}
