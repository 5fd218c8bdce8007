// Classes on and off: one switch for each class of the chosen model.

import { rgb } from "./colors.js";
import { change, classNames, defaults, make, onSettings, settings } from "./page.js";

export function mount(element, known) {
  defaults({ model: known.default, hidden: new Set() });
  const chips = element.querySelector(".pv-chips");

  function list() {
    const model = known.models[settings.model];
    chips.replaceChildren();
    element.querySelector(".pv-classes").hidden = !model;
    if (!model) return;
    const colors = new Map([...model.detection, ...model.segmentation].map((c) => [c.name, c.color]));
    for (const name of classNames(model)) {
      const chip = make("label", "pv-chip");
      const box = make("input");
      Object.assign(box, { type: "checkbox", value: name, checked: !settings.hidden.has(name) });
      const swatch = make("i", "pv-swatch");
      if (colors.has(name)) swatch.style.background = rgb(colors.get(name));
      chip.append(box, swatch, make("span", "", name));
      chips.append(chip);
    }
  }

  function hide(names, hidden) {
    const next = new Set(settings.hidden);
    names.forEach((name) => (hidden ? next.add(name) : next.delete(name)));
    change({ hidden: next });
  }

  element.addEventListener("change", ({ target }) => hide([target.value], !target.checked));
  element.addEventListener("click", ({ target }) => {
    const model = known.models[settings.model];
    if (!target.dataset.all || !model) return;
    hide(classNames(model), target.dataset.all === "off");
    list();
  });
  onSettings((changes) => "model" in changes && list());
  list();
}
