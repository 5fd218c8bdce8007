// The keyboard on the tabs: Gradio's are stops of the Tab key, and do not follow the arrows.

const STEPS = { ArrowLeft: (at) => at - 1, ArrowRight: (at) => at + 1, Home: () => 0, End: () => -1 };

/** Which of so many tabs a key leads to from one of them, round and round; null for other keys. */
export function follow(key, at, count) {
  return Object.hasOwn(STEPS, key) ? (STEPS[key](at) + count) % count : null;
}

/** Choose the tab beside the one that has the keyboard by an arrow, the first and last by Home and End. */
export function useArrows() {
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.('[role="tab"]');
    if (!tab || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const tabs = [...tab.parentElement.querySelectorAll(':scope > [role="tab"]:not(:disabled)')];
    const next = follow(event.key, tabs.indexOf(tab), tabs.length);
    if (next === null) return;
    event.preventDefault();
    tabs[next].focus();
    tabs[next].click();
  });
}

/** Choose a tab by its name, as a click would; the keyboard goes there too. */
export function chooseTab(name) {
  const tabs = [...document.querySelectorAll('[role="tab"]')].filter((tab) => tab.checkVisibility());
  const tab = tabs.find((each) => each.textContent.trim() === name);
  tab?.focus();
  tab?.click();
}
