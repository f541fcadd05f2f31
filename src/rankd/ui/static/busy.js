// One request at a time per panel: its button becomes Stop, and the panel shows the seconds.
// A new request takes the place of the one that runs.

import { byId, el } from "./dom.js";
import { t } from "./labels.js";

const running = new Map();

// Run `work(signal, show)` for a button, and throw what it throws.
// `show(text, elements)` shows progress and the results so far in the panel.
export async function busy(button, panel, work) {
  running.get(button)?.abort();
  const controller = new AbortController();
  running.set(button, controller);
  const isNewest = () => running.get(button) === controller;
  button.textContent = t("stop");
  button.classList.add("stop");
  const progress = progressLine();
  const partial = el("div", { class: "partial" });
  panel.setAttribute("aria-busy", "true");
  panel.replaceChildren(progress.element, partial);
  try {
    await work(controller.signal, (text, elements = []) => {
      progress.say(text);
      partial.replaceChildren(...elements);
    });
  } catch (error) {
    if (isNewest()) {
      throw error;
    }
  } finally {
    progress.end();
    if (isNewest()) {
      running.delete(button);
      panel.removeAttribute("aria-busy");
      button.textContent = t(button.dataset.label);
      button.classList.remove("stop");
    }
  }
}

// Pressing a button whose request runs stops it.
export function stopOnClick(button) {
  button.addEventListener("click", (event) => {
    // Enter in a field also clicks the button, and asks anew.
    const isPressed = event.detail > 0 || document.activeElement === button;
    if (running.has(button) && isPressed) {
      event.preventDefault();
      running.get(button).abort();
    }
  });
}

function progressLine() {
  const words = el("span");
  const seconds = el("span", { class: "seconds" });
  const spinner = el("span", { class: "spinner", "aria-hidden": "true" });
  const element = el("p", { class: "progress" }, spinner, words, " … ", seconds);
  const started = performance.now();
  const tick = () => {
    seconds.textContent = t("seconds", { n: ((performance.now() - started) / 1000).toFixed(1) });
  };
  tick();
  const timer = setInterval(tick, 100);
  return {
    element,
    say: (text) => (words.textContent = text),
    end: () => clearInterval(timer),
  };
}

// The page's one polite live region.
export const announce = (text) => (byId("status").textContent = text);
