// The list of conversations: searched, renamed, saved as files, deleted (and brought back), and the way to the rooms.

import { api } from "./api.js";
import { ask, download, h, icon, iconButton, toast } from "./dom.js";

const PAUSE = 150; // ms of no typing before a search
const LARGEST = 16 * 2 ** 20; // bytes of a file that is read

const ROOMS = [
  ["chat", "#/chat", "Chat"],
  ["lab", "#/lab", "Prompt lab"],
  ["card", "#/model", "Model"],
];
const THEMES = [
  ["", "half", "Theme: the system’s"],
  ["light", "sun", "Theme: light"],
  ["dark", "moon", "Theme: dark"],
];

export class Sidebar {
  #asked = 0;

  constructor(element, page) {
    this.page = page;
    this.search = h("input", {
      type: "search",
      id: "search",
      placeholder: "Search",
      "aria-label": "Search conversations (Ctrl K)",
      autocomplete: "off",
      oninput: () => {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.refresh(), PAUSE);
      },
      onkeydown: (event) => {
        if (event.key === "Escape") {
          this.search.value = "";
          this.refresh();
        } else if (event.key === "ArrowDown") this.list.querySelector("a")?.focus();
      },
    });
    this.list = h("nav", { class: "list", "aria-label": "Conversations", onkeydown: (event) => this.#arrows(event) });
    this.file = h("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => this.#open() });
    this.rooms = ROOMS.map(([name, href, label]) =>
      h("a", { class: "room", href, data: { room: name } }, icon(name), h("span", {}, label)),
    );
    this.theme = iconButton("half", "Theme", () => this.#turn());
    element.append(
      h(
        "header",
        { class: "brand" },
        h("a", { href: "#/chat", class: "wordmark" }, h("img", { src: "/page/icon.svg", alt: "", width: 24, height: 24 }), "chatsmith"),
        iconButton("close", "Close the list", () => page.closeSide(), { class: "ghost only-narrow" }),
      ),
      h("nav", { class: "rooms", "aria-label": "Rooms" }, this.rooms),
      h(
        "div",
        { class: "seek" },
        h("label", { class: "field-search" }, icon("search"), this.search),
        iconButton("plus", "New conversation (Ctrl Shift O)", () => page.begin(), { class: "ghost new" }),
      ),
      this.list,
      h(
        "footer",
        { class: "side-foot" },
        h("button", { type: "button", class: "plain small", onclick: () => this.file.click() }, icon("open"), "Import"),
        this.file,
        this.theme,
      ),
    );
    this.#drawTheme();
  }

  /** Mark the room and the conversation that are shown. */
  mark(room, id) {
    for (const link of this.rooms) link.toggleAttribute("aria-current", link.dataset.room === room);
    this.current = id;
    for (const link of this.list.querySelectorAll("a")) {
      if (link.dataset.id === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** The list anew from the server; an older answer that comes late is dropped. */
  async refresh() {
    const turn = ++this.#asked;
    const part = this.search.value.trim();
    try {
      const { conversations } = await api.conversations(part);
      if (turn !== this.#asked) return;
      const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
      this.list.replaceChildren(...(conversations.length ? this.#groups(conversations) : [nothing(part)]));
      if (focused) this.list.querySelector(`a[data-id="${CSS.escape(focused)}"]`)?.focus();
    } catch (error) {
      if (turn === this.#asked) this.list.replaceChildren(h("p", { class: "quiet" }, error.message));
    }
  }

  #groups(conversations) {
    const groups = new Map();
    for (const one of conversations) {
      const name = dayOf(one.updated);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(this.#item(one));
    }
    return [...groups].map(([name, items]) =>
      h("section", { "aria-label": name }, h("h2", { class: "day" }, name), h("ul", {}, items)),
    );
  }

  #item(one) {
    const title = one.title || "Untitled";
    const on = one.id === this.current;
    const link = h(
      "a",
      { href: `#/chat/${one.id}`, title, data: { id: one.id }, "aria-current": on ? "page" : null, onclick: () => this.page.closeSide() },
      title,
    );
    return h(
      "li",
      {},
      link,
      h(
        "div",
        { class: "item-tools" },
        iconButton("edit", `Rename ${title}`, () => this.#rename(one)),
        iconButton("save", `Export ${title} as a file`, () => this.#export(one)),
        iconButton("trash", `Delete ${title}`, () => this.#delete(one)),
      ),
    );
  }

  async #rename(one) {
    const field = h("input", { type: "text", id: "new-title", maxlength: 200, required: true, value: one.title });
    const title = await ask({
      title: "Rename",
      body: h("div", { class: "stack" }, h("label", { for: "new-title" }, "Title"), field),
      confirm: "Rename",
      read: () => field.value.trim(),
    });
    if (title) await this.#try(async () => {
      await api.change(one.id, { title });
      this.page.renamed(one.id, title);
    });
  }

  #export(one) {
    return this.#try(async () => {
      const name = (one.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
      download(`${name}.json`, JSON.stringify(await api.exported(one.id)));
    });
  }

  /** Deleted at once; what was deleted is held by the page for as long as it can be brought back. */
  #delete(one) {
    return this.#try(async () => {
      const held = await api.exported(one.id);
      await api.remove(one.id);
      if (this.current === one.id) this.page.begin();
      toast(`Deleted “${one.title || "Untitled"}”`, "Undo", () => this.#restore(held));
    });
  }

  #restore(file) {
    return this.#try(async () => {
      const made = await api.imported(file);
      location.hash = `#/chat/${made.id}`;
    });
  }

  async #open() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    if (file.size > LARGEST) return void toast("That file is too large for a conversation.");
    let content;
    try {
      content = JSON.parse(await file.text());
    } catch {
      return void toast(`${file.name} is not an exported conversation.`);
    }
    await this.#restore(content);
  }

  async #try(work) {
    try {
      await work();
    } catch (error) {
      toast(error.message);
    }
    await this.refresh();
  }

  #arrows(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const links = [...this.list.querySelectorAll("a")];
    const to = links.indexOf(document.activeElement.closest("li")?.querySelector("a")) + step;
    (to < 0 ? this.search : links[to])?.focus();
  }

  #turn() {
    const now = document.documentElement.dataset.theme ?? "";
    const [next] = THEMES[(THEMES.findIndex(([name]) => name === now) + 1) % THEMES.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("chatsmith-theme", next);
    this.#drawTheme();
  }

  #drawTheme() {
    const now = document.documentElement.dataset.theme ?? "";
    const [, drawing, label] = THEMES.find(([name]) => name === now);
    this.theme.replaceChildren(icon(drawing));
    this.theme.title = label;
    this.theme.setAttribute("aria-label", label);
  }
}

const nothing = (part) =>
  h("p", { class: "quiet" }, part ? `Nothing holds “${part}”.` : "What you talk about will be listed here.");

function dayOf(seconds) {
  const midnight = new Date().setHours(0, 0, 0, 0) / 1000;
  if (seconds >= midnight) return "Today";
  if (seconds >= midnight - 86_400) return "Yesterday";
  if (seconds >= midnight - 6 * 86_400) return "This week";
  return new Date(seconds * 1000).toLocaleDateString("en", { month: "long", year: "numeric" });
}
