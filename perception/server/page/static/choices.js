// The two lists of the settings, sources and models, and which settings mean anything now: see also page.css.

import { change, defaults, keep, kept, onSettings, request, settings } from "./page.js";
import { useArrows } from "./tabs.js";

const TASKS = { segmentation: "masks", detection: "boxes", classification: "a class for the picture" };

/** What a model is for, in a few words: "masks and boxes". */
export function purpose(model) {
  return Object.entries(TASKS).filter(([task]) => model[task].length).map(([, words]) => words).join(" and ");
}

/** The first sentence of a description. */
export function firstSentence(text) {
  return text.match(/^.*?[.!?](?=\s|$)/s)?.[0] ?? text;
}

/** Whether a source is a camera: this browser's, or one of the server's. */
export function isCamera(source) {
  return source === "webcam" || /^server:\d+$/.test(source);
}

/** The model for a source: the one that was last chosen for sources of its kind, else the server's. */
export function modelFor(source, known) {
  const chosen = kept(kind(source));
  return chosen in known.models ? chosen : isCamera(source) ? known.camera : known.default;
}

/** Change the source, and the model with it where another one fits. */
export function changeSource(source, known) {
  const model = modelFor(source, known);
  change({ source, ...(model !== settings.model && { model }) });
}

const kind = (source) => (isCamera(source) ? "camera-model" : "model"); // under which a choice is kept

/** Facts that page.css goes by: a setting is shown where it means something. */
export function facts(model, { tab = "live", source = "" }) {
  const tasks = Object.keys(TASKS).filter((task) => model?.[task]?.length);
  const here = tab === "live" && (source === "webcam" || source === "file"); // drawn in the browser, which has boxes only
  return {
    pvTab: tab,
    pvSource: source.replace(/^server:.*/, "server"),
    pvTasks: tasks.join(" "),
    pvUnknown: model?.unknown ? "yes" : "no",
    pvViews: here ? "boxes" : (model?.views ?? []).join(" "),
  };
}

/** Gradio's arrow beside a slider would go back to what the model had with which the page began. */
function resetToModel(known) {
  const reset = (event) => {
    const button = event.target.closest("#pv-score .reset-button, #pv-iou .reset-button");
    if (!button) return;
    event.stopPropagation();
    const slider = button.closest("#pv-score, #pv-iou");
    const value = known.models[settings.model]?.[slider.id.replace("pv-", "")];
    const number = slider.querySelector("input[type=number]");
    if (value !== undefined) Object.assign(number, { value }).dispatchEvent(new Event("input", { bubbles: true }));
  };
  document.addEventListener("click", reset, true);
}

/** Offer the server's sources that there are now: they may come and go while the page is open. */
function offer(list, names, known) {
  const fixed = known.sources.map(([, value]) => value).filter((value) => !value.startsWith("server:") || isCamera(value));
  const wanted = names.map((name) => `server:${name}`);
  for (const option of [...list.options])
    if (![...wanted, ...fixed, settings.source].includes(option.value)) option.remove();
  const there = [...list.options].map((option) => option.value);
  const before = [...list.options].find((option) => fixed.includes(option.value)) ?? null;
  for (const value of wanted)
    if (!there.includes(value)) list.insertBefore(new Option(value.slice("server:".length).replaceAll("_", " "), value), before);
}

export function mount(element, known, trigger) {
  const find = (name) => element.querySelector(name);
  const [source, model, url] = ["#pv-source", "#pv-model", "#pv-url"].map(find);
  defaults({ source: known.source });
  defaults({ model: modelFor(settings.source, known) });
  source.append(...known.sources.map(([text, value]) => new Option(text, value)));
  const names = Object.keys(known.models);
  model.append(...(names.length ? names : [known.default]).map((name) => new Option(name, name)));
  for (const option of model.options)
    if (known.models[option.value]) option.textContent += `: ${purpose(known.models[option.value])}`;
  find(".pv-more").hidden = known.sources.some(([, value]) => value === "url" || /^server:\d+$/.test(value));

  source.onchange = () => changeSource(source.value, known);
  model.onchange = () => {
    keep(kind(settings.source), model.value);
    change({ model: model.value });
  };
  url.onkeydown = (event) => event.key === "Enter" && change({ url: url.value.trim() });

  function show() {
    source.value = settings.source;
    model.value = settings.model;
    find(".pv-about").textContent = firstSentence(known.models[settings.model]?.description ?? "");
    Object.assign(document.documentElement.dataset, facts(known.models[settings.model], settings));
  }
  onSettings((changes) => {
    if (["source", "model", "tab"].some((name) => name in changes)) show();
    if ("model" in changes) trigger("change"); // the thresholds are Gradio's
    if ("sources" in changes) {
      offer(source, settings.sources, known);
      show();
    }
  });
  request("v1/sources")
    .then((answer) => answer.json())
    .then(({ sources }) => change({ sources: sources.map(({ name }) => name) }))
    .catch(() => {}); // those that the page began with are there
  resetToModel(known);
  useArrows();
  show();
  if (settings.model !== known.default) trigger("change");
}
