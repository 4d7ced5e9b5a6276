// A reply as tokens: each a span one can hover, focus and open, tinted by how surprising it was.
//
// A token is kept as the server stores it: [id, text, log probability, [[id, text, log probability], …]].

import { h } from "./dom.js";
import { bitsOf, bitsText, percent, surprise, textOf, visible } from "./distribution.js";

/** How a token that ends a turn is written. */
export const ENDING = /^<\|.*\|>$/;

const HOVER = 110; // ms: moving across tokens on the way to somewhere else opens none of them

/** A server's entry of `logprobs.content` as a token. */
export const fromLogprobs = (entry) => [
  entry.id,
  entry.token,
  entry.logprob,
  (entry.top_logprobs ?? []).map((other) => [other.id, other.token, other.logprob]),
];

/** The tokens of a completion's lists. The alternatives there have no ids (−1): the server is asked for them. */
export const textTokens = (logprobs) =>
  (logprobs?.ids ?? []).map((id, place) => {
    const text = logprobs.tokens[place];
    const others = Object.entries(logprobs.top_logprobs[place] ?? {});
    const ranked = others.sort(([, one], [, other]) => other - one);
    return [id, text, logprobs.token_logprobs[place], ranked.map(([token, p]) => [token === text ? id : -1, token, p])];
  });

/** What a screen reader says of a token. */
const spoken = ([, text, logprob]) => {
  const p = Math.exp(logprob);
  return `${text.trim() || visible(text)}, ${percent(p)}, ${bitsText(bitsOf(p))}`;
};

/**
 * Tokens as one line of spans. `onlook(place)` is called for a token hovered or focused, `onopen(place)` for one clicked
 * or entered. One of them is in the tab order; the arrows move between them. Gives {line, grown}: `grown()` shows what was
 * added to `tokens` since.
 */
export function tokenLine(tokens, { onlook, onopen, branchAt = -1 }) {
  const spans = [];
  const line = h("div", { class: "tokens", role: "group", "aria-label": "Reply as tokens; arrows move between them" });
  /** Show the tokens that came since; those shown stay as they are. */
  const grown = () => {
    const fresh = tokens.slice(spans.length).map((token, at) => tokenSpan(token, spans.length + at, branchAt));
    spans.push(...fresh);
    line.append(...fresh);
  };
  grown();
  let timer = 0;
  const placeOf = (event) => {
    const span = event.target.closest?.(".token");
    return span ? Number(span.dataset.place) : -1;
  };
  line.addEventListener("pointerover", (event) => {
    clearTimeout(timer);
    const place = placeOf(event);
    if (place >= 0 && event.pointerType !== "touch") timer = setTimeout(() => onlook(place), HOVER);
  });
  line.addEventListener("pointerleave", () => clearTimeout(timer));
  line.addEventListener("focusin", (event) => {
    const place = placeOf(event);
    if (place < 0) return;
    for (const span of line.querySelectorAll('[tabindex="0"]')) span.tabIndex = -1;
    spans[place].tabIndex = 0;
    onlook(place);
  });
  line.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place >= 0) onopen(place);
  });
  line.addEventListener("keydown", (event) => {
    const place = placeOf(event);
    if (place < 0) return;
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      spans[Math.max(0, Math.min(spans.length - 1, to))].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onopen(place);
    }
  });
  return { line, grown };
}

function tokenSpan(token, place, branchAt) {
  const ends = ENDING.test(token[1]);
  const said = ends ? `end of the reply, ${percent(Math.exp(token[2]))}` : spoken(token);
  return h(
    "span",
    {
      class: `token${place === branchAt ? " turned" : ""}${ends ? " ending" : ""}`,
      role: "button",
      tabindex: place === 0 ? "0" : "-1",
      "aria-label": place === branchAt ? `${said}, branched here` : said,
      title: ends ? "Here it chose to end" : null,
      data: { surprise: surprise(token[2]), place },
    },
    ends ? "end" : textOf(token[1]).replace(/\n/g, "⏎\n"),
  );
}

/** Mark the token that is being looked at, wherever it stands. */
export function markToken(line, place) {
  for (const old of document.querySelectorAll(".token.looked")) old.classList.remove("looked");
  line?.querySelector(`.token[data-place="${place}"]`)?.classList.add("looked");
}

/** What the tints mean. */
export const legend = () =>
  h(
    "div",
    { class: "legend", "aria-label": "Tint: from foreseen to surprising" },
    h("span", {}, "foreseen"),
    [0, 1, 2, 3, 4, 5, 6].map((step) => h("i", { data: { surprise: step } })),
    h("span", {}, "surprising"),
  );
