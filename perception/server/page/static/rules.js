// Lines and zones of the Live tab: drawn over the picture, named and deleted in a list, with what they count.
//
// Where the source is the server's, they are kept there for everybody (GET and PUT v1/streams/{id}/rules, see
// perception/server/routes/rules.py); the server draws them into its pictures, but while they are edited the page does.
// Those of the browser's own camera, or of a file of its, travel with its connection (perception/server/routes/webcam.py),
// the page draws them, and the browser remembers them. Each change is sent at once.
//
// What a view has for that: readRules() gives a promise of {editable, fixed, drawn, faults}; writeRules(drawn, all) has
// the server take the rules `drawn` (`all` are those too that it refuses) and gives a promise of {faults};
// drawsRules says whether the server draws them; showRules(shown) whether it should.

import { RuleList } from "./rule-list.js";
import { RuleHistory } from "./rule-history.js";
import { drawRules } from "./rule-overlay.js";
import { isActive, label } from "./rule-words.js";
import { RuleSet } from "./rule-set.js";
import { Pen } from "./pen.js";
import { download, fileName } from "./page.js";

const HOW = {
  null: "Drag what is there by its points; drag a small one to make a corner.",
  lines: "Drag from one end of the line to the other, or click both.",
  zones: "Click corner after corner; click the first one, or press Enter, to close it.",
};
const SAMPLE_MS = 1000;

export class Rules {
  /** @param element the tab; @param live {redraw(), source() its name, mirror() whether the picture is mirrored} */
  constructor(element, live) {
    const find = (name) => element.querySelector(`.pv-${name}`);
    this.live = live;
    this.parts = Object.fromEntries(["stage", "draw", "rules", "tools", "add-line", "add-zone", "close-zone", "how", "rule-list", "csv", "rules-note"].map((name) => [name, find(name)]));
    this.history = new RuleHistory();
    this.set = new RuleSet(async (drawn) => this.view?.writeRules(drawn, this.set.drawn), {
      changed: () => this.changed(),
      problem: (text, error) => this.problem(text, error),
    });
    this.pen = new Pen(this.set, { changed: () => this.changed(), chosen: (shape) => this.choose(shape) });
    this.list = new RuleList(this.parts["rule-list"], this.set, this.history, {
      chosen: (shape) => this.choose(shape),
      mirrored: () => live.mirror(),
      first: () => this.parts["add-line"],
    });
    this.forget();
    this.listen();
  }

  forget() {
    Object.assign(this, { view: null, readings: {}, active: null, editable: false, editing: false });
    this.history.clear();
  }

  listen() {
    const { stage, draw, csv } = this.parts;
    draw.onclick = () => this.edit(!this.editing);
    for (const [name, kind] of [["add-line", "lines"], ["add-zone", "zones"]])
      this.parts[name].onclick = ({ detail }) => (detail === 0 ? this.addMiddle(kind) : this.pen.begin(this.pen.kind === kind ? null : kind));
    this.parts["close-zone"].onclick = () => this.pen.close();
    csv.onclick = () => download(new Blob([this.history.csv(this.live.source())], { type: "text/csv" }), fileName("csv"));
    stage.addEventListener("pointerdown", (event) => {
      if (!this.editing || !event.isPrimary || event.button || event.target.closest("button")) return;
      stage.setPointerCapture(event.pointerId);
      this.pen.down(this.at(event), this.screen);
    });
    stage.addEventListener("pointermove", (event) => this.editing && event.isPrimary && this.pen.move(this.at(event), this.screen));
    stage.addEventListener("pointerup", (event) => this.editing && event.isPrimary && this.pen.up(this.at(event), this.screen));
    stage.addEventListener("pointercancel", () => this.editing && this.pen.cancel());
    stage.addEventListener("dblclick", (event) => this.editing && this.pen.double(this.at(event), this.screen));
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    if (!this.editing || event.defaultPrevented) return;
    if (event.key === "Escape") {
      if (this.pen.cancel()) return;
      document.activeElement?.blur?.(); // what is typed there holds
      this.edit(false);
      this.parts.draw.focus();
    } else if (event.key === "Enter" && this.pen.draft) {
      event.preventDefault();
      this.pen.close();
    }
  }

  at({ clientX, clientY }) {
    const { left, top } = this.parts.stage.getBoundingClientRect();
    return [clientX - left, clientY - top];
  }

  get screen() {
    const { width, height } = this.parts.stage.getBoundingClientRect();
    return { width, height, mirror: this.live.mirror() };
  }

  // The source

  /** Begin with a view: show its rules, and let the user draw where the model has boxes. */
  async open(view, hasBoxes, anew = false) {
    this.view = view;
    try {
      const found = await view.readRules();
      if (this.view !== view || (this.editing && !anew)) return;
      this.editable = found.editable && hasBoxes;
      this.set.load(found);
      if (view.ready && this.set.shapes.length) this.set.retry(); // it had nothing to be told
    } catch (error) {
      if (this.view === view) this.note(error.message);
    }
  }

  close() {
    if (this.editing) this.edit(false);
    this.forget();
    this.note("");
    this.set.load({});
  }

  /** The server is there, anew or with another model: it has to be told. */
  tell(hasBoxes) {
    this.editable = hasBoxes;
    if (this.set.shapes.length) this.set.retry();
    else this.changed();
  }

  /** What the rules say now; `active` are those at which something happens, if the server says so. */
  say(readings, active = null) {
    Object.assign(this, { readings, active });
    const names = Object.keys(readings);
    const unknown = names.filter((name) => !this.set.names.includes(name)).join("\n");
    if (unknown && unknown !== this.unknown && this.view?.drawsRules && !this.editing && !this.set.sending)
      this.open(this.view, this.editable); // somebody else draws
    this.unknown = unknown;
    const now = Date.now();
    if (now - (this.sampled ?? 0) < SAMPLE_MS - 50) return;
    this.sampled = now;
    if (names.length) this.history.add(now, readings);
    if (!names.length && !this.set.names.length) return;
    this.show();
    if (this.editing && this.view?.drawsRules) this.live.redraw();
  }

  // What is seen

  edit(editing) {
    this.editing = editing;
    this.pen.begin(null);
    this.pen.choose(null);
    this.view?.showRules?.(!editing);
    this.changed();
  }

  choose(shape) {
    this.pen.chosen = shape;
    this.list.chosen = shape;
    this.changed();
  }

  /** A shape of usual size in the middle, for those who have no pointer: arrow keys move it. */
  addMiddle(kind) {
    const points = kind === "lines" ? [[0.25, 0.5], [0.75, 0.5]] : [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]];
    this.pen.finish(points, kind);
    this.parts["rule-list"].lastElementChild?.querySelector("input")?.focus();
  }

  changed() {
    this.show();
    this.live.redraw();
  }

  show() {
    const { parts, pen, editing } = this;
    const some = this.set.names.length > 0;
    parts.draw.hidden = !this.editable;
    parts.draw.textContent = editing ? "Done" : "Lines and zones";
    parts.draw.setAttribute("aria-pressed", String(editing));
    parts.rules.hidden = !some && !editing;
    parts.tools.hidden = !editing;
    parts.csv.parentElement.hidden = !some;
    parts.stage.classList.toggle("pv-drawing", editing);
    parts.stage.classList.toggle("pv-pen", Boolean(pen.kind));
    for (const [name, kind] of [["add-line", "lines"], ["add-zone", "zones"]]) parts[name].setAttribute("aria-pressed", String(pen.kind === kind));
    parts["close-zone"].hidden = !(pen.kind === "zones" && pen.draft?.length > 2);
    const how = editing ? (pen.kind || pen.drawn.length ? HOW[pen.kind] : "Draw a line that is crossed, or a zone that is entered.") : "";
    if (parts.how.textContent !== how) parts.how.textContent = how;
    this.list.editing = editing;
    this.list.show(this.readings);
  }

  note(text) {
    this.parts["rules-note"].textContent = text;
  }

  async problem(text, error) {
    this.note(text);
    if (error?.status !== 412) return;
    await this.open(this.view, this.editable, true); // somebody else has changed them
    this.note(text);
  }

  /** Draw what the page has to draw, over the picture. */
  draw(context, still = false) {
    if (!this.view || (this.view.drawsRules && !this.editing)) return;
    const shapes = this.set.fixed.filter(({ rule }) => rule.points).map(({ kind, rule }) => this.shown(kind, rule, rule.points));
    for (const shape of this.pen.drawn) {
      const made = this.shown(shape.kind, shape.rule, still ? shape.rule.points : this.pen.pointsOf(shape));
      shapes.push({ ...made, wrong: Boolean(shape.fault), handles: this.editing && !still && (shape === this.pen.chosen || !this.pen.kind) });
    }
    const { draft, cursor, kind } = this.pen;
    if (draft && !still) shapes.push({ kind, points: cursor ? [...draft, cursor] : draft, open: true, handles: true });
    const scale = context.canvas.width / Math.max(this.parts.stage.clientWidth, 1);
    drawRules(context, shapes, this.live.mirror(), scale);
  }

  shown(kind, rule, points) {
    const said = this.readings[rule.name];
    const active = this.active ? this.active.includes(rule.name) : isActive(said ?? {});
    return { kind: kind === "conditions" ? "zones" : kind, points, text: said ? label(rule.name, said) : rule.name, active };
  }
}
