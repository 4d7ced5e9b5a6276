// The panel beside the conversation: how a word was chosen, the branches, the settings. On a phone it is a sheet.

import { h, iconButton } from "./dom.js";
import { WordView } from "./word.js";

const TABS = { word: "Word", branches: "Branches", settings: "Settings" };

export class Panel {
  #tab = "word";
  #views = {};
  #back = null;

  constructor(element, { onopen }) {
    this.element = element;
    this.onopen = onopen;
    this.word = new WordView();
    this.tabs = Object.entries(TABS).map(([name, label]) =>
      h(
        "button",
        { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel-body", onclick: () => this.show(name) },
        label,
      ),
    );
    this.body = h("div", { id: "panel-body", class: "panel-body", role: "tabpanel", tabindex: "0" });
    element.append(
      h(
        "header",
        { class: "panel-head" },
        h("div", { role: "tablist", class: "tabs", "aria-label": "Inspector", onkeydown: (event) => this.#arrows(event) }, this.tabs),
        iconButton("close", "Close the panel", () => this.close()),
      ),
      this.body,
    );
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.#leave();
      }
    });
  }

  get open() {
    return !this.element.hidden;
  }

  get tab() {
    return this.open ? this.#tab : null;
  }

  /** What the tabs show: functions that give a node; the word's view is the panel's own. */
  offer(views) {
    this.#views = views;
    for (const tab of this.tabs) tab.hidden = tab.id !== "tab-word" && !views[tab.id.slice(4)];
    if (this.open) this.show(this.#tab in views || this.#tab === "word" ? this.#tab : "word");
  }

  show(name) {
    this.#tab = name;
    this.element.hidden = false;
    document.body.classList.add("with-panel");
    for (const tab of this.tabs) {
      const on = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
    }
    this.body.setAttribute("aria-labelledby", `tab-${name}`);
    this.body.replaceChildren(name === "word" ? this.word.element : this.#views[name]());
    this.onopen(name);
  }

  /** Show a tab, or close the panel if that tab is shown. */
  toggle(name) {
    if (this.tab === name) this.close();
    else {
      this.#back = document.activeElement;
      this.show(name);
      this.body.querySelector("textarea, input, button")?.focus({ preventScroll: true });
    }
  }

  /** Draw again what is shown, if it is one of these. */
  refresh(...names) {
    if (names.includes(this.tab)) this.show(this.#tab);
  }

  close() {
    this.element.hidden = true;
    document.body.classList.remove("with-panel");
    this.onopen(null);
    this.#back?.focus?.({ preventScroll: true });
    this.#back = null;
  }

  /** Look at a token; `enter` moves the focus to its alternatives, and Escape brings it back. */
  look(source, place, { enter = false } = {}) {
    if (this.tab !== "word") this.show("word");
    this.word.look(source, place);
    if (!enter) return;
    this.#back = document.activeElement;
    this.word.enter();
  }

  #leave() {
    if (this.tab === "word" && this.#back?.isConnected && this.#back.classList.contains("token")) {
      this.#back.focus();
      this.#back = null;
    } else this.close();
  }

  #arrows(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const shown = this.tabs.filter((tab) => !tab.hidden);
    const to = shown[(shown.indexOf(event.target) + step + shown.length) % shown.length];
    this.show(to.id.slice(4));
    to.focus();
  }
}
