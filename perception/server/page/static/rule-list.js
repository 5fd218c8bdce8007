// The list beside the picture: each line and zone with its numbers, a plot of them and, while they are edited, with its
// name, classes and directions. Fields are changed in place, so that nobody who types is interrupted by a count.

import { make, nameRow } from "./page.js";
import { drawBars } from "./rule-history.js";
import { sentences } from "./rule-words.js";
import { shifted } from "./shapes.js";

const STEP = 0.01; // of the frame, with an arrow key
const STEPS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const TITLES = { lines: "line", zones: "zone", conditions: "condition" };
const WAYS = ["forward", "backward"];

/** Names in a row of them, as split_names() of the server: commas between, quotes around one that has a comma. */
export function splitNames(text) {
  const found = [...text.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)/g)];
  return found.map(([, quoted, plain]) => (quoted === undefined ? plain.trim() : quoted.replaceAll('""', '"'))).filter(Boolean);
}

export class RuleList {
  /**
   * @param list the <ul>
   * @param rules the RuleSet
   * @param history the RuleHistory
   * @param on {chosen(shape), mirrored() whether the picture is}
   */
  constructor(list, rules, history, on) {
    Object.assign(this, { list, rules, history, on, items: new Map(), editing: false, chosen: null });
  }

  /** Show what there is: one item for each rule, new ones at the end. */
  show(readings) {
    const all = [...this.rules.fixed.map((fixed) => ({ ...fixed, key: fixed.rule })), ...this.rules.shapes.map((shape) => ({ ...shape, shape, key: shape }))];
    const keys = new Set(all.map(({ key }) => key));
    for (const [key, item] of this.items) {
      if (keys.has(key)) continue;
      item.root.remove();
      this.items.delete(key);
    }
    all.forEach(({ key, shape, kind, rule, fault = "" }, i) => {
      if (!this.items.has(key)) this.items.set(key, this.item(shape, kind));
      const item = this.items.get(key);
      if (this.list.children[i] !== item.root) this.list.insertBefore(item.root, this.list.children[i] ?? null);
      item.update(rule, fault, readings[rule.name] ?? {});
      item.root.classList.toggle("pv-chosen", shape !== undefined && shape === this.chosen);
      if (item.fields) item.fields.hidden = !this.editing;
    });
  }

  item(shape, kind) {
    const root = make("li", "pv-rule");
    const head = make("div", "pv-rule-head");
    const [name, numbers, fault] = [make("b", "pv-rule-name"), make("span", "pv-numbers"), make("p", "pv-fault")];
    const plot = make("canvas", "pv-bars");
    plot.setAttribute("role", "img");
    fault.setAttribute("role", "alert");
    head.append(make("i", `pv-kind pv-kind-${kind}`), name, numbers, plot);
    root.append(head, fault);
    const fields = shape && this.fields(shape, root);
    const update = (rule, wrong, told) => {
      name.textContent = rule.name;
      numbers.textContent = sentences(told).join(" · ");
      if (fault.textContent !== wrong) fault.textContent = wrong;
      fault.hidden = !wrong;
      plot.setAttribute("aria-label", `${rule.name} over the last five minutes`);
      drawBars(plot, this.history.plot(rule.name, Date.now()));
      fields?.fill(rule);
    };
    return { root, update, fields: fields?.root };
  }

  /** The fields of a shape: what is typed holds when it is left, or with Enter. */
  fields(shape, item) {
    const root = make("div", "pv-fields");
    const title = TITLES[shape.kind];
    const inputs = [];
    const field = (words, read, write, placeholder = "") => {
      const [box, input] = [make("label", "pv-rule-field", words), make("input")];
      Object.assign(input, { type: "text", maxLength: 2000, placeholder, autocomplete: "off", spellcheck: false });
      input.onchange = () => this.rules.change(shape, write(input.value.trim()));
      box.append(input);
      root.append(box);
      inputs.push({ input, read });
    };
    const button = (words, does, className = "") => {
      const made = make("button", className, words);
      made.type = "button";
      made.setAttribute("aria-label", `${words} ${title}`);
      made.onclick = does;
      root.append(made);
      return made;
    };
    field("Name", ({ name }) => name, (name) => ({ name }));
    if (shape.kind !== "conditions") {
      const classes = (text) => ({ classes: text ? splitNames(text) : undefined });
      field("Classes", (rule) => (rule.classes ? nameRow([rule.classes].flat()) : ""), classes, "all");
    }
    if (shape.kind === "lines") {
      const ways = ({ directions = WAYS }) => directions;
      const named = (directions) => ({ directions: String(directions) === String(WAYS) ? undefined : directions });
      field("To the tick", (rule) => ways(rule)[0], (way) => named([way, ways(shape.rule)[1]]));
      field("Back", (rule) => ways(rule)[1], (way) => named([ways(shape.rule)[0], way]));
      button("Turn", () => this.rules.change(shape, { points: [...shape.rule.points].reverse() })).title = "The tick to the other side";
    }
    if (shape.rule.points) {
      const move = button("Move", () => this.on.chosen(shape));
      move.title = "Arrow keys move it";
      move.onkeydown = (event) => this.moveBy(shape, event);
    }
    button("Delete", () => this.remove(shape, item));
    root.addEventListener("focusin", () => this.on.chosen(shape));
    item.append(root);
    return {
      root,
      fill: (rule) => {
        for (const { input, read } of inputs) if (input !== document.activeElement) input.value = read(rule);
      },
    };
  }

  moveBy(shape, event) {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault(); // the page would scroll
    const [dx, dy] = step;
    this.rules.change(shape, { points: shifted(shape.rule.points, this.on.mirrored() ? -dx : dx, dy) });
  }

  /** The keyboard goes on with the next one, or to where one can be drawn. */
  remove(shape, item) {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    this.rules.remove(shape);
    (next?.querySelector(".pv-fields input") ?? this.on.first())?.focus();
  }
}
