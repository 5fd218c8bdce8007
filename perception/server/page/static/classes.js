// Classes on and off: one switch for each class of the chosen model. They are one stop of the Tab key; arrows go on.

import { rgb } from "./colors.js";
import { change, classNames, defaults, make, onSettings, settings } from "./page.js";

const MANY = 12; // more classes than this can be searched

/** Which of `count` switches a key leads to from number `at`; undefined where it is not a key that leads anywhere. */
export function nextSwitch(key, at, count) {
  const places = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: count - 1 };
  return key in places && count ? (places[key] + count) % count : undefined;
}

export function mount(element, known) {
  defaults({ model: known.default, hidden: new Set() });
  const find = (name) => element.querySelector(`.pv-${name}`);
  const [chips, search, none] = [find("chips"), find("search"), find("none")];

  /** The switches that the search leaves. */
  const shown = () => [...chips.querySelectorAll("label:not([hidden]) input")];

  function list() {
    const model = known.models[settings.model];
    chips.replaceChildren();
    find("classes").hidden = !model;
    if (!model) return;
    const colors = new Map([...model.detection, ...model.segmentation].map((c) => [c.name, c.color]));
    for (const name of classNames(model)) {
      const chip = make("label", "pv-chip");
      const box = make("input");
      Object.assign(box, { type: "checkbox", value: name, checked: !settings.hidden.has(name), tabIndex: -1 });
      const swatch = make("i", "pv-swatch");
      if (colors.has(name)) swatch.style.background = rgb(colors.get(name));
      chip.append(box, ...(colors.has(name) ? [swatch] : []), make("span", "", name));
      chips.append(chip);
    }
    search.hidden = chips.children.length <= MANY;
    search.value = "";
    filter();
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const chip of chips.children) chip.hidden = !chip.textContent.toLowerCase().includes(wanted);
    none.textContent = shown().length ? "" : "No class of that name.";
    stop(shown()[0]);
  }

  /** Make one switch the only stop. */
  function stop(box) {
    const before = chips.querySelector("input[tabindex='0']");
    if (before) before.tabIndex = -1;
    if (box) box.tabIndex = 0;
  }

  function hide(names, hidden) {
    const next = new Set(settings.hidden);
    names.forEach((name) => (hidden ? next.add(name) : next.delete(name)));
    change({ hidden: next });
  }

  chips.addEventListener("keydown", (event) => {
    const boxes = shown();
    const to = nextSwitch(event.key, boxes.indexOf(event.target), boxes.length);
    if (to === undefined) return;
    event.preventDefault(); // the list would scroll
    boxes[to].focus();
  });
  chips.addEventListener("focusin", ({ target }) => stop(target));
  chips.addEventListener("change", ({ target }) => hide([target.value], !target.checked));
  search.addEventListener("input", filter);
  element.addEventListener("click", ({ target }) => {
    if (!target.dataset.all) return;
    const boxes = shown(); // what the search leaves
    boxes.forEach((box) => (box.checked = target.dataset.all === "on"));
    hide(boxes.map((box) => box.value), target.dataset.all === "off");
  });
  onSettings((changes) => "model" in changes && list());
  list();
}
