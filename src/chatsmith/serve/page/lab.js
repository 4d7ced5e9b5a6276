// The prompt lab: a text to continue, and tasks shown by description and examples.

import { api } from "./api.js";
import { Examples } from "./examples.js";
import { grow, h, icon } from "./dom.js";
import { problem } from "./problem.js";
import { asked, remembered, settingsView } from "./settings.js";
import { legend, markToken, textTokens, tokenLine } from "./tokens.js";

const ALTERNATIVES = 8;
const LENGTH = 100;

export class Lab {
  #control = null;
  #settings = null;

  constructor(page) {
    this.page = page;
    this.examples = new Examples(page);
    this.text = grow(
      h("textarea", {
        id: "text",
        rows: 7,
        class: "paper",
        placeholder: "Once upon a time",
        onkeydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
        },
      }),
    );
    this.run = h("button", { type: "button", class: "primary", onclick: () => (this.busy ? this.stop() : this.write()) });
    this.out = h("div", { class: "written", "aria-live": "off" });
    this.tabs = ["Continue a text", "Learn from examples"].map((label, place) =>
      h(
        "button",
        { type: "button", role: "tab", "aria-controls": "lab-body", id: `lab-${place}`, onclick: () => this.#tab(place),
          onkeydown: (event) => this.#arrows(event, place) },
        label,
      ),
    );
    this.body = h("div", { class: "lab-body", id: "lab-body", role: "tabpanel" });
    this.element = h(
      "div",
      { class: "room-view" },
      h(
        "header",
        { class: "head" },
        page.menuButton(),
        h("h1", { class: "title" }, "Prompt lab"),
        h("div", { class: "row tools" }, h("button", { type: "button", class: "ghost", "aria-label": "Settings", title: "Settings", onclick: () => page.panel.toggle("settings") }, icon("sliders"))),
      ),
      h("div", { class: "scroller" }, h("div", { class: "page" }, h("div", { class: "tabs big", role: "tablist", "aria-label": "Lab" }, this.tabs), this.body)),
    );
    this.#button();
    this.#tab(0);
  }

  /** Continue a prompt of the examples from tokens that it begins with. */
  begin(prompt, begun) {
    this.#tab(0);
    this.text.value = prompt;
    this.text.dispatchEvent(new Event("input"));
    this.write(begun);
  }

  get busy() {
    return this.#control !== null;
  }

  show() {
    this.page.panel.word.clear();
    this.page.panel.offer({
      settings: () => {
        const form = settingsView({
          settings: this.settings, system: "", context: this.page.model?.card?.context,
          onchange: (changes) => Object.assign(this.settings, changes.settings),
        });
        form.firstChild.remove(); // a text has no system prompt
        return form;
      },
    });
    return this.element;
  }

  /** Known once the model is. */
  get settings() {
    return (this.#settings ??= { ...remembered(), max_tokens: LENGTH });
  }

  #tab(place) {
    this.tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(at === place));
      tab.tabIndex = at === place ? 0 : -1;
    });
    this.body.setAttribute("aria-labelledby", `lab-${place}`);
    this.body.replaceChildren(place ? this.examples.element : this.#continue());
  }

  #arrows(event, place) {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    this.#tab(1 - place);
    this.tabs[1 - place].focus();
  }

  #continue() {
    return h(
      "div",
      { class: "stack" },
      h("label", { for: "text", class: "about" }, "The model goes on from here, as it would in a book it had half read. No roles, no chat."),
      this.text,
      h("div", { class: "row" }, this.run, h("span", { class: "quiet small" }, "Ctrl Enter")),
      this.out,
    );
  }

  #button() {
    this.run.replaceChildren(icon(this.busy ? "stop" : "play"), this.busy ? "Stop" : "Continue");
  }

  stop() {
    this.#control?.abort();
  }

  /** Continue the text; `begun` are tokens that the continuation begins with. */
  async write(begun = []) {
    if (this.busy) return;
    const prompt = this.text.value;
    const source = { key: `lab-${performance.now()}`, request: { text: prompt }, tokens: [...begun], settings: this.settings };
    source.branch = (place, { id, token, raw, p }) => {
      const alternatives = source.tokens[place][3];
      const known = alternatives.find(([other]) => other === id)?.[2] ?? Math.log(raw ?? p ?? 1e-9);
      this.text.value = prompt;
      this.write([...source.tokens.slice(0, place), [id, token, known, alternatives]]);
    };
    this.#control = new AbortController();
    this.#button();
    const { line, grown } = this.#lay(source, begun.length);
    this.out.replaceChildren(legend(), line);
    const request = { model: this.page.model?.id, prompt, ...asked(this.settings), logprobs: ALTERNATIVES };
    if (begun.length) request.prefix_ids = begun.map(([id]) => id);
    try {
      for await (const event of api.streamText(request, this.#control.signal)) {
        source.tokens.push(...textTokens(event.choices?.[0]?.logprobs));
        grown();
      }
    } catch (error) {
      if (error.name !== "AbortError") this.out.append(problem(error, () => this.write(begun)));
    }
    this.#control = null;
    this.#button();
    if (!source.tokens.length) return;
    const keep = h("button", { type: "button", class: "plain", onclick: () => this.#keep(source) }, "Add to the text");
    this.out.append(h("div", { class: "row" }, keep));
  }

  /** The tokens of a continuation, to be looked at when all have come. */
  #lay(source, begun) {
    const look = (place, enter) => {
      if (this.busy) return;
      this.page.panel.look(source, place, { enter });
      markToken(laid.line, place);
    };
    const laid = tokenLine(source.tokens, {
      onlook: (place) => look(place, false),
      onopen: (place) => look(place, true),
      branchAt: begun - 1,
    });
    return laid;
  }

  async #keep(source) {
    const { text } = await api.detokenize(source.tokens.map(([id]) => id));
    this.text.value += text;
    this.text.dispatchEvent(new Event("input"));
    this.out.replaceChildren();
    this.text.focus();
  }
}
