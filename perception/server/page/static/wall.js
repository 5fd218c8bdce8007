// The Wall tab: all sources of the server at once, small, over one socket; see perception/server/viewers/wall.py.

import { changeSource } from "./choices.js";
import { address, change, make, onSettings, request, settings } from "./page.js";
import { Retry, webcamEnd } from "./reconnect.js";
import { label } from "./rule-words.js";
import { chooseTab } from "./tabs.js";

const SURE_MS = 5000; // so long a second click removes

export function mount(element, known) {
  window.perception.wall = new Wall(element, known);
}

/** A message of pictures: the id of a stream behind its length, and a JPEG. */
export function picture(data) {
  const bytes = new Uint8Array(data);
  return { id: new TextDecoder().decode(bytes.subarray(1, 1 + bytes[0])), jpeg: bytes.subarray(1 + bytes[0]) };
}

/** What is counted at a source, in a few words: "3 boxes; gate: in 5, out 2". */
export function counts({ boxes, rules }) {
  const said = Object.entries(rules).map(([name, numbers]) => label(name, numbers));
  return [`${boxes} box${boxes === 1 ? "" : "es"}`, ...said].join("; ");
}

/** How a source is, in a few words. */
export function condition({ state, message, fps }) {
  if (state === "running" && !message) return `running, ${fps.toFixed(1)} frames/s`;
  return message ? `${state}: ${message}` : state;
}

class Wall {
  constructor(element, known) {
    const find = (name) => element.querySelector(`.pv-${name}`);
    this.known = known;
    this.list = find("tiles");
    this.note = find("wall-note");
    this.form = find("add-source");
    this.tiles = new Map(); // by name
    this.retry = new Retry(() => this.connect());
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.add();
    };
    onSettings((changes) => "tab" in changes && this.follow());
    document.addEventListener("visibilitychange", () => this.follow());
    this.follow();
  }

  /** Connect while the wall is shown: nobody draws for a page that nobody sees. */
  follow() {
    const seen = settings.tab === "wall" && document.visibilityState === "visible";
    if (seen && !this.socket) this.connect();
    if (seen) return;
    this.retry.cancel();
    this.socket?.close();
    this.socket = null;
  }

  connect() {
    const socket = new WebSocket(address("v1/wall", true));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      if (data instanceof ArrayBuffer) return this.show(picture(data));
      const message = JSON.parse(data);
      if (message.error) return this.say(message.error);
      this.retry.worked();
      this.update(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.socket) return;
      if (webcamEnd(code, reason) === "refused") return this.say(reason || "The wall cannot be shown.");
      this.say(reason || "The server cannot be reached; trying again.");
      for (const tile of this.tiles.values()) tile.item.classList.add("pv-stale");
      this.retry.later();
    };
  }

  say(text) {
    this.note.textContent = text;
  }

  update({ editable, sources }) {
    this.say(sources.length ? "" : "There is no source yet.");
    this.form.hidden = !editable;
    const names = sources.map(({ name }) => name);
    for (const [name, tile] of this.tiles)
      if (!names.includes(name)) {
        tile.close();
        this.tiles.delete(name);
      }
    sources.forEach((source, place) => {
      if (!this.tiles.has(source.name)) this.tiles.set(source.name, new Tile(source.name, this));
      const tile = this.tiles.get(source.name);
      tile.update(source, editable);
      if (this.list.children[place] !== tile.item) this.list.insertBefore(tile.item, this.list.children[place] ?? null);
    });
    if (names.join("\n") !== settings.sources?.join("\n")) change({ sources: names });
  }

  show({ id, jpeg }) {
    for (const tile of this.tiles.values()) if (tile.id === id) tile.show(jpeg);
  }

  /** Show a source large. */
  open(name) {
    changeSource(`server:${name}`, this.known);
    chooseTab("Live");
  }

  async add() {
    const { name, uri, fps } = this.form.elements;
    const body = { uri: uri.value.trim(), ...(fps.value && { fps: Number(fps.value) }) };
    await this.ask(name.value.trim(), "PUT", body, () => {
      this.form.reset();
      name.focus();
    });
  }

  /** Change a source; what the server says against it is shown. */
  async ask(name, method, body, then) {
    const note = this.form.querySelector(".pv-note");
    const headers = { "Content-Type": "application/json" };
    try {
      await request(`v1/sources/${encodeURIComponent(name)}`, { method, headers, body: JSON.stringify(body) });
      note.textContent = "";
      then?.();
    } catch (error) {
      note.textContent = error.message;
    }
  }
}

class Tile {
  constructor(name, wall) {
    this.wall = wall;
    this.name = name;
    this.item = make("li", "pv-tile");
    this.button = make("button", "pv-tile-open");
    this.button.type = "button";
    this.image = make("img");
    this.image.alt = "";
    this.image.hidden = true;
    this.button.append(this.image);
    this.button.onclick = () => wall.open(name);
    this.title = make("span", "pv-tile-name", name);
    this.state = make("span", "pv-state");
    this.counts = make("span", "pv-tile-counts");
    this.pause = this.control("Pause", () => wall.ask(name, "PATCH", { paused: !this.paused }));
    this.remove = this.control("Remove", () => this.removeOrAsk());
    const head = make("div", "pv-tile-head");
    head.append(this.title, this.state);
    const foot = make("div", "pv-bar pv-tile-foot");
    foot.append(this.counts, this.pause, this.remove);
    this.item.append(this.button, head, foot);
  }

  control(text, action) {
    const button = make("button", "", text);
    button.type = "button";
    button.onclick = action;
    return button;
  }

  removeOrAsk() {
    if (this.sure) {
      clearTimeout(this.sure);
      return this.wall.ask(this.name, "DELETE");
    }
    this.remove.textContent = "Really remove?";
    this.sure = setTimeout(() => {
      this.sure = null;
      this.remove.textContent = "Remove";
    }, SURE_MS);
  }

  update(source, editable) {
    if (source.id !== this.id) this.id = source.id;
    this.paused = source.paused;
    const said = condition(source);
    this.state.textContent = said;
    this.state.title = said;
    this.state.dataset.state = source.state;
    this.counts.textContent = counts(source);
    this.button.setAttribute("aria-label", `${this.name}, ${source.state}: show it large`);
    this.item.classList.toggle("pv-stale", source.state !== "running");
    this.pause.hidden = !editable;
    this.pause.textContent = source.paused ? "Resume" : "Pause";
    this.pause.setAttribute("aria-label", `${this.pause.textContent} ${this.name}`);
    this.remove.hidden = !(editable && source.added);
    this.remove.setAttribute("aria-label", `${this.remove.textContent.replace("?", "")} ${this.name}`);
  }

  show(jpeg) {
    const before = this.url;
    this.url = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    this.image.src = this.url;
    this.image.hidden = false;
    this.shown = (this.shown ?? 0) + 1; // for measuring
    if (before) URL.revokeObjectURL(before);
  }

  close() {
    this.item.remove();
    clearTimeout(this.sure);
    if (this.url) URL.revokeObjectURL(this.url);
  }
}
