// What pointers and keys do to lines and zones: draw new ones, take handles, drag. Knows nothing of the page.
//
// A line is dragged from one end to the other, or made by a click at each. A zone gets a corner with each click; a click
// at its first corner, a double click or Enter closes it. Handles of what is there are dragged: a corner moves, the
// middle of a zone's edge becomes a corner, anything else moves the shape; a double click takes a corner away.

import { apart, dragged, gripAt, isAt, toFrame, toScreen } from "./shapes.js";

const MOST_POINTS = 64; // of a zone, as the server has it

export class Pen {
  /**
   * @param rules the RuleSet that is drawn upon.
   * @param on {changed() something is seen differently now, chosen(shape)}
   */
  constructor(rules, on) {
    this.rules = rules;
    this.on = on;
    this.kind = null; // "lines" or "zones" while one is to be drawn
    this.draft = null; // points of it, so far
    this.cursor = null; // where the next one would be
    this.chosen = null; // the shape whose handles are on top
    this.drag = null;
  }

  /** Begin to draw a line or a zone; null: to edit what is there. */
  begin(kind) {
    Object.assign(this, { kind, draft: null, cursor: null, drag: null });
    this.on.changed();
  }

  choose(shape) {
    if (this.chosen === shape) return;
    this.chosen = shape;
    this.on.changed();
    this.on.chosen(shape);
  }

  /** Shapes with their points; conditions may have none. */
  get drawn() {
    return this.rules.shapes.filter(({ rule }) => rule.points);
  }

  down(at, screen) {
    if (this.kind) return this.place(at, screen);
    const shapes = this.drawn;
    const grip = gripAt(shapes.map(({ rule }) => rule.points), at, screen, shapes.indexOf(this.chosen));
    const shape = grip && shapes[grip.shape];
    this.choose(shape);
    this.drag = grip && { shape, grip, from: at, points: shape.rule.points, moved: false };
  }

  /** A corner is set. */
  place(at, screen) {
    const point = toFrame(at, screen);
    this.cursor = point;
    if (!this.draft) {
      this.draft = [point];
      this.pressed = at;
    } else if (this.kind === "lines") {
      this.finish([this.draft[0], point]);
    } else if (this.draft.length > 2 && isAt(toScreen(this.draft[0], screen), at)) {
      this.close();
    } else if (apart(toScreen(this.draft.at(-1), screen), at) && this.draft.length < MOST_POINTS) {
      this.draft.push(point);
    }
    this.on.changed();
  }

  move(at, screen) {
    if (this.draft) {
      this.cursor = toFrame(at, screen);
      return this.on.changed();
    }
    const { drag } = this;
    if (!drag) return;
    drag.moved ||= apart(drag.from, at);
    if (!drag.moved) return;
    drag.shown = dragged(drag.points, drag.grip, drag.from, at, screen);
    this.on.changed();
  }

  up(at, screen) {
    const { drag } = this;
    if (this.kind === "lines" && this.draft && apart(this.pressed, at)) this.finish([this.draft[0], toFrame(at, screen)]);
    this.drag = null;
    if (drag?.shown) this.rules.change(drag.shape, { points: drag.shown });
  }

  /** A double click: closes a zone that is drawn, or takes away the corner that it is on. */
  double(at, screen) {
    if (this.draft) return this.close();
    const grip = this.chosen && gripAt([this.chosen.rule.points], at, screen);
    const { points } = this.chosen?.rule ?? {};
    if (grip?.point === undefined || points.length < 4) return;
    this.rules.change(this.chosen, { points: points.filter((_, i) => i !== grip.point) });
  }

  /** Finish the zone that is drawn, if it has corners enough. */
  close() {
    if (this.kind === "zones" && this.draft?.length > 2) this.finish(this.draft);
  }

  finish(points, kind = this.kind) {
    this.begin(null);
    this.choose(this.rules.add(kind, points));
  }

  /** Give up what is being drawn or dragged; whether there was something. */
  cancel() {
    const was = Boolean(this.kind || this.drag?.shown);
    this.begin(null);
    return was;
  }

  /** The points of a shape as they are seen now. */
  pointsOf(shape) {
    return this.drag?.shape === shape && this.drag.shown ? this.drag.shown : shape.rule.points;
  }
}
