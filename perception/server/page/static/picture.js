// The Picture tab: one picture, before and after, drawn anew when a setting changes.

import { onFile } from "./drop.js";
import { Explain } from "./explain.js";
import { legendItems, pictureRows } from "./legend.js";
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
      ["drop", "file", "note", "pair", "before", "after", "found", "legend", "get-image", "get-json", "lacking"].map((name) => [name, find(name)]),
    );
    this.explain = new Explain(element.querySelector(".pv-explain"), [this.parts.before, this.parts.after], known);
    this.parts.lacking.hidden = !known.lacking;
    this.parts.lacking.querySelector("span").textContent = known.lacking ?? "";
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
    this.parts.pair.hidden = this.parts.found.hidden = true;
    this.explain.about(null);
    this.predict();
  }

  async predict() {
    const file = this.file;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const model = this.known.models[settings.model];
    const chosen = query({ ...options(model), model: settings.model });
    const ask = (Accept) => {
      const headers = { "Content-Type": "application/octet-stream", Accept };
      return request(`v1/predict?${chosen}`, { method: "POST", headers, body: file, signal: abort.signal });
    };
    this.note("Predicting …");
    try {
      const started = performance.now();
      const annotated = await (await ask("image/png")).blob();
      const took = Math.round(performance.now() - started);
      const seen = await (await ask("application/json")).json();
      if (abort.signal.aborted) return;
      const { parts } = this;
      parts["get-image"].href = show(parts.after, annotated);
      parts["get-image"].download = fileName("png");
      if (parts["get-json"].href) URL.revokeObjectURL(parts["get-json"].href);
      parts["get-json"].href = URL.createObjectURL(new Blob([JSON.stringify(seen, null, 1)], { type: "application/json" }));
      parts["get-json"].download = fileName("json");
      parts.legend.replaceChildren(...legendItems(pictureRows(seen, model), settings.hidden));
      parts.pair.hidden = parts.found.hidden = false;
      this.note(`${took} ms`);
      this.explain.about(file, seen);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.parts.pair.hidden = this.parts.found.hidden = true;
      this.note(error.message);
      this.explain.about(null);
    }
  }

  note(text) {
    this.parts.note.textContent = text;
  }
}
