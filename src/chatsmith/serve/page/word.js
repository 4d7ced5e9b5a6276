// How a word was chosen: what else could have stood there, how likely each was, and what temperature does to that.

import { api } from "./api.js";
import { h } from "./dom.js";
import { bitsOf, bitsText, decodeLogits, Distribution, percent, textOf, visible } from "./distribution.js";
import { rankPlot } from "./plot.js";

const COUNT = 20;
const PATIENCE = 120; // ms of looking before the server is asked
const KEPT = 64; // distributions remembered

/**
 * The view of one token. A source is {key, request, tokens, settings, branch}: `request` is what /v1/next is asked
 * (messages or text), `branch(place, candidate)` goes on from another token in a place.
 */
export class WordView {
  #asked = new Map(); // key:place → the server's answer
  #timer = 0;
  #control = null;

  constructor() {
    this.element = h("div", { class: "word" }, emptyWord());
  }

  clear() {
    this.#control?.abort();
    clearTimeout(this.#timer);
    this.source = null;
    this.element.replaceChildren(emptyWord());
  }

  /** Show a place at once from what was kept with the reply, then whole, when the server has answered. */
  look(source, place) {
    if (this.source === source && this.place === place) return;
    Object.assign(this, { source, place, distribution: null });
    this.#control?.abort();
    clearTimeout(this.#timer);
    const [id, text, logprob, alternatives] = source.tokens[place];
    const kept = alternatives.map(([otherId, token, p]) => ({ id: otherId, token, p: Math.exp(p) }));
    if (!kept.some((candidate) => candidate.id === id)) kept.push({ id, token: text, p: Math.exp(logprob) });
    this.#draw(kept);
    const known = this.#asked.get(`${source.key}:${place}`);
    if (known) this.#whole(known);
    else this.#timer = setTimeout(() => this.#ask(source, place), PATIENCE);
  }

  async #ask(source, place) {
    this.#control = new AbortController();
    try {
      const prefix = source.tokens.slice(0, place).map(([id]) => id);
      const body = { ...source.request, prefix_ids: prefix, count: COUNT, logits: true, temperature: 1 };
      const answer = await api.next(body, this.#control.signal);
      const found = {
        candidates: answer.candidates,
        distribution: new Distribution(decodeLogits(answer.logits_base64)),
      };
      this.#asked.set(`${source.key}:${place}`, found);
      if (this.#asked.size > KEPT) this.#asked.delete(this.#asked.keys().next().value);
      if (this.source === source && this.place === place) this.#whole(found);
    } catch (error) {
      if (error.name !== "AbortError" && this.source === source && this.place === place)
        this.note.textContent = `Only what was kept with the reply is shown: ${error.message}`;
    }
  }

  #draw(candidates) {
    const { source, place } = this;
    const [id, text, logprob] = source.tokens[place];
    const p = Math.exp(logprob);
    this.candidates = candidates;
    this.rank = h("span", {});
    this.drawn = source.settings.temperature ?? 1;
    this.slider = h("input", {
      type: "range",
      id: "reshape",
      min: 0,
      max: 2,
      step: 0.05,
      value: 1,
      disabled: true,
      oninput: () => this.#reshape(),
    });
    this.shown = h("output", { for: "reshape" }, "1.00");
    this.facts = h("dl", { class: "facts" });
    this.rows = h("ol", { class: "bars", "aria-label": "What else could have stood here" });
    this.note = h("p", { class: "quiet" }, "Asking for the whole distribution…");
    this.plot = rankPlot();
    this.figure = h(
      "figure",
      { class: "figure", hidden: true },
      this.plot.element,
      h("figcaption", {}, "Probability by rank, both on logarithmic scales. A straight line is a power law."),
    );
    this.element.replaceChildren(
      h(
        "header",
        { class: "word-head" },
        h("p", { class: "eyebrow" }, `Token ${place + 1} of ${source.tokens.length}`),
        h("p", { class: "context" }, before(source.tokens, place), h("mark", {}, visible(text))),
        h("p", { class: "odds" }, h("strong", {}, percent(p)), ` likely, ${bitsText(bitsOf(p))}`, this.rank),
      ),
      h(
        "div",
        { class: "reshape" },
        h("div", { class: "row spread" }, h("label", { for: "reshape" }, "Temperature"), this.shown),
        this.slider,
        h(
          "div",
          { class: "row spread small" },
          h("span", {}, "sure"),
          h("button", { type: "button", class: "link", onclick: () => this.#set(1) }, "the model’s own, 1"),
          h("button", { type: "button", class: "link", onclick: () => this.#set(this.drawn) }, `as drawn, ${this.drawn}`),
          h("span", {}, "wild"),
        ),
      ),
      this.facts,
      this.rows,
      this.note,
      this.figure,
    );
    this.bars = candidates.map((candidate, at) => this.#row(candidate, at, candidate.id === id));
    this.rows.replaceChildren(...this.bars.map((bar) => bar.item));
    candidates.forEach((candidate, at) => this.bars[at].set(candidate.p, true));
  }

  #row(candidate, at, chosen) {
    const fill = h("i", { class: "fill" });
    const share = h("span", { class: "share" });
    const bits = h("span", { class: "bits" });
    const button = h(
      "button",
      {
        type: "button",
        class: chosen ? "bar chosen" : "bar",
        "aria-current": chosen ? "true" : null,
        title: chosen ? "This token was chosen" : "Go on from this token",
        disabled: candidate.id < 0,
        onclick: () => chosen || this.source.branch(this.place, candidate),
      },
      fill,
      h("code", {}, visible(candidate.token)),
      share,
      bits,
    );
    const set = (p, kept) => {
      fill.style.transform = `scaleX(${p})`;
      share.textContent = percent(p);
      bits.textContent = bitsText(bitsOf(p));
      button.classList.toggle("cut", !kept);
      button.setAttribute(
        "aria-label",
        `${at + 1}. ${candidate.token.trim() || visible(candidate.token)}, ${share.textContent}, ${bits.textContent}` +
          (chosen ? ", chosen" : ", go on from here") +
          (kept ? "" : ", cut by top-p"),
      );
    };
    return { item: h("li", {}, button), set };
  }

  /** The server's answer: candidates in order, and every logit. */
  #whole({ candidates, distribution }) {
    const [id, text, logprob] = this.source.tokens[this.place];
    const shown = candidates.map(({ id: other, token, logit, raw }) => ({ id: other, token, logit, raw }));
    const at = distribution.at(1);
    let place = candidates.findIndex((candidate) => candidate.id === id);
    if (place < 0) {
      // The chosen token ranks below those that were asked for; its logit follows from its probability.
      const logit = distribution.top + logprob - Math.log(at(distribution.top));
      shown.push({ id, token: text, logit });
      place = distribution.sorted.findIndex((other) => other <= logit + 1e-4);
    }
    const focused = this.rows.contains(document.activeElement)
      ? [...this.rows.querySelectorAll("button")].indexOf(document.activeElement)
      : -1;
    Object.assign(this, { candidates: shown, distribution, chosenRank: place + 1 });
    this.rank.textContent = `, rank ${(place + 1).toLocaleString("en")} of ${distribution.sorted.length.toLocaleString("en")}`;
    this.bars = shown.map((candidate, row) => this.#row(candidate, row, candidate.id === id));
    this.rows.replaceChildren(...this.bars.map((bar) => bar.item));
    if (focused >= 0) this.rows.querySelectorAll("button")[focused]?.focus();
    this.slider.disabled = false;
    this.note.textContent = "Click a token to go on from it in a branch of its own.";
    this.figure.hidden = false;
    this.#reshape();
  }

  #set(temperature) {
    if (!this.distribution) return;
    this.slider.value = temperature;
    this.#reshape();
  }

  /** Everything shown, at the slider's temperature: arithmetic on the logits, no model run. */
  #reshape() {
    const { distribution } = this;
    const temperature = Number(this.slider.value);
    const topP = this.source.settings.top_p ?? 1;
    this.shown.textContent = temperature.toFixed(2);
    this.slider.setAttribute("aria-valuetext", `${temperature.toFixed(2)}`);
    const probability = distribution.at(temperature);
    const kept = topP < 1 ? distribution.nucleus(temperature, topP) : distribution.sorted.length;
    this.candidates.forEach(({ logit }, place) => {
      const { item, set } = this.bars[place];
      set(probability(logit), place < kept && probability(logit) > 0);
      if (place === kept && topP < 1) item.dataset.limit = `top-p ${topP} ends here`;
      else delete item.dataset.limit;
    });
    const entropy = distribution.entropy(temperature);
    const open = 2 ** entropy;
    this.facts.replaceChildren(
      ...fact("Entropy", `${entropy.toFixed(2)} bits`),
      ...fact("As open as", open < 1.05 ? "no choice" : `${open.toFixed(open < 10 ? 1 : 0)} equal tokens`),
      ...(topP < 1 ? fact(`Top-p ${topP} keeps`, `${kept.toLocaleString("en")} token${kept === 1 ? "" : "s"}`) : []),
    );
    this.plot.update(distribution, temperature, this.chosenRank);
  }

  /** Put the focus on the first alternative. */
  enter() {
    this.rows?.querySelector("button")?.focus();
  }
}

const fact = (name, value) => [h("div", {}, h("dt", {}, name), h("dd", {}, value))];

/** The text that led here, its end. */
const before = (tokens, place) => {
  const text = tokens.slice(Math.max(0, place - 24), place).map(([, part]) => textOf(part)).join("");
  return (text.length > 70 ? `…${text.slice(-70)}` : text).replace(/\s*\n\s*/g, " ⏎ ");
};

const emptyWord = () =>
  h(
    "div",
    { class: "nothing" },
    h("p", { class: "lead" }, "How was a word chosen?"),
    h("p", {}, "Show a reply as tokens and point at one, or move to it with the arrow keys. Enter comes here; Escape goes back."),
  );
