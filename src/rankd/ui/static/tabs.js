// Tabs with arrow keys, as the ARIA practices describe them.

const tabs = () => [...document.querySelectorAll("[role=tab]")];

export function openTab(name) {
  for (const tab of tabs()) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
}

export function startTabs() {
  openTab("ranking");
  const list = document.getElementById("tabs");
  list.addEventListener("click", ({ target }) => {
    if (target.role === "tab") {
      openTab(target.id.replace("tab-", ""));
    }
  });
  list.addEventListener("keydown", (event) => {
    const all = tabs();
    const at = all.indexOf(document.activeElement);
    const last = all.length - 1;
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      const tab = all[(next + all.length) % all.length];
      tab.focus();
      tab.click();
    }
  });
}
