// Zero, one and few shots side by side: a task described, some examples of it, and what the model makes of a new one.

import { api } from "./api.js";
import { bitsOf, bitsText, percent, visible } from "./distribution.js";
import { grow, h, icon, iconButton } from "./dom.js";
import { problem } from "./problem.js";
import { markToken, textTokens, tokenLine } from "./tokens.js";

const MOST = 32; // examples
const ANSWER = 24; // tokens
const SHOWN = 5; // first tokens
const START = { rows: [["hot", "cold"], ["big", "small"], ["up", "down"]], ask: "happy", to: "=>" };

/**
 * The prompt with the first `shots` examples: one a line, "hot => cold" (Brown et al. 2020, figure 2.1), or with a mark
 * before the question one a paragraph, "Q: hot", "A: cold".
 */
export function promptOf({ task, rows, ask, from, to }, shots) {
  const question = from ? (left) => `${from} ${left}\n${to}` : (left) => `${left} ${to}`;
  const gap = from ? "\n\n" : "\n";
  const shown = rows.filter(([left, right]) => left && right).slice(0, shots);
  return [...(task ? [task] : []), ...shown.map(([left, right]) => `${question(left)} ${right}`), question(ask)].join(gap);
}

export class Examples {
  constructor(page) {
    this.page = page;
    this.task = grow(h("textarea", { id: "task", rows: 1, placeholder: "What is to be done, in words (may be empty)" }));
    this.from = h("input", { type: "text", id: "from", placeholder: "nothing, or Q:", maxlength: 60 });
    this.to = h("input", { type: "text", id: "to", value: START.to, maxlength: 60 });
    this.rows = h("ol", { class: "examples" });
    this.ask = h("input", { type: "text", id: "ask", value: START.ask });
    this.run = h("button", { type: "submit", class: "primary" }, icon("play"), h("span", {}, "Run"));
    this.out = h("div", { class: "shots", "aria-live": "polite" });
    for (const row of START.rows) this.#add(row);
    this.element = h(
      "form",
      { class: "stack", onsubmit: (event) => (event.preventDefault(), this.#run()) },
      h("p", { class: "about" }, "No training: the same model reads the task with none, one or all of the examples before it."),
      h("div", { class: "field" }, h("label", { for: "task" }, "Task"), this.task),
      h(
        "div",
        { class: "pair" },
        h("div", { class: "field" }, h("label", { for: "from" }, "Before a question"), this.from),
        h("div", { class: "field" }, h("label", { for: "to" }, "Before an answer"), this.to),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Examples"),
        this.rows,
        h("button", { type: "button", class: "plain small", onclick: () => this.#add(["", ""], true) }, icon("plus"), "Add an example"),
      ),
      h("div", { class: "field" }, h("label", { for: "ask" }, "The question"), this.ask),
      h("div", { class: "row" }, this.run),
      this.out,
    );
  }

  #add([left, right], focus = false) {
    if (this.rows.children.length >= MOST) return;
    const row = h(
      "li",
      {},
      h("input", { type: "text", "aria-label": "Example question", value: left }),
      h("span", { "aria-hidden": "true" }, "→"),
      h("input", { type: "text", "aria-label": "Example answer", value: right }),
      iconButton("close", "Remove this example", () => row.remove()),
    );
    this.rows.append(row);
    if (focus) row.querySelector("input").focus();
  }

  get parts() {
    const rows = [...this.rows.children].map((row) => [...row.querySelectorAll("input")].map((input) => input.value.trim()));
    const [task, ask, from, to] = [this.task, this.ask, this.from, this.to].map((box) => box.value.trim());
    return { task, ask, from, to, rows: rows.filter(([left, right]) => left && right) };
  }

  async #run() {
    const { parts } = this;
    const counts = [...new Set([0, 1, parts.rows.length])].filter((count) => count <= parts.rows.length);
    this.run.disabled = true;
    const columns = counts.map((count) => this.#column(parts, count));
    this.out.replaceChildren(...columns.map(({ element }) => element));
    await Promise.all(columns.map(({ fill }) => fill()));
    this.run.disabled = false;
  }

  #column(parts, count) {
    const prompt = promptOf(parts, count);
    const name = count === 0 ? "No example" : count === 1 ? "One example" : `${count} examples`;
    const body = h("div", { class: "shot-body" }, h("p", { class: "quiet" }, "Running…"));
    const element = h(
      "section",
      { class: "shot", "aria-label": name },
      h("h2", {}, name),
      body,
      h("details", {}, h("summary", {}, "The prompt"), h("pre", { tabindex: "0" }, prompt)),
    );
    const fill = async () => {
      try {
        body.replaceChildren(...(await this.#answer(prompt)));
      } catch (error) {
        body.replaceChildren(problem(error, fill));
      }
    };
    return { element, fill };
  }

  /** The likeliest answer, how probable it was, and what it might have begun with. */
  async #answer(prompt) {
    const answer = await api.complete({
      model: this.page.model?.id, prompt, temperature: 0, max_tokens: ANSWER, stop: ["\n"], logprobs: 8,
    });
    const [choice] = answer.choices;
    const tokens = upToStop(textTokens(choice.logprobs));
    const source = { key: `shot-${performance.now()}`, request: { text: prompt }, tokens, settings: { temperature: 0 } };
    const look = (place, enter) => {
      this.page.panel.look(source, place, { enter });
      markToken(line, place);
    };
    source.branch = (place, candidate) => this.#instead(source, prompt, place, candidate);
    const { line } = tokenLine(tokens, { onlook: (place) => look(place, false), onopen: (place) => look(place, true) });
    const p = Math.exp(tokens.reduce((sum, [, , logprob]) => sum + logprob, 0));
    const first = tokens[0]?.[3].slice(0, SHOWN) ?? [];
    return [
      h("p", { class: "answer" }, choice.text.trim() || "(nothing)"),
      h("p", { class: "chance" }, h("strong", {}, percent(p)), ` likely, ${bitsText(bitsOf(p))}, as a whole`),
      tokens.length ? line : "",
      h("h3", {}, "It might have begun with"),
      h("ol", { class: "bars flat" }, first.map(([, token, logprob]) => firstBar(token, Math.exp(logprob)))),
    ];
  }

  /** Another token in a place: the lab's other side continues from there. */
  #instead({ tokens }, prompt, place, { id, token, raw, p }) {
    const lab = this.page.lab;
    const begun = [...tokens.slice(0, place), [id, token, Math.log(raw ?? p ?? 1e-9), tokens[place][3]]];
    lab.begin(prompt, begun);
  }
}

/** Tokens up to the line's end, at which the answer was stopped. */
function upToStop(tokens) {
  const end = tokens.findIndex(([, text]) => text.includes("\n"));
  return end < 0 ? tokens : tokens.slice(0, end);
}

function firstBar(token, p) {
  const fill = h("i", { class: "fill" });
  fill.style.transform = `scaleX(${p})`;
  return h(
    "li",
    {},
    h("div", { class: "bar" }, fill, h("code", {}, visible(token)), h("span", { class: "share" }, percent(p)), h("span", { class: "bits" }, bitsText(bitsOf(p)))),
  );
}
