// What the model is, what it learned from, what it can do and how fast: as far as it is known, and nothing else.

import { h } from "./dom.js";

const whole = (value) => Math.round(value).toLocaleString("en");

/** 1,234,567 → 1.2 million: for a headline. */
export function short(value) {
  for (const [size, name] of [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]])
    if (value >= size) return `${(value / size).toFixed(value / size < 10 ? 1 : 0)} ${name}`;
  return whole(value);
}

const known = (rows) => rows.filter(([, value]) => value !== null && value !== undefined && value !== "");

const table = (title, rows) =>
  known(rows).length > 0 &&
  h("section", { class: "card" }, h("h2", {}, title), h("dl", { class: "rows" }, known(rows).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));

const lines = (title, items, kind) =>
  items?.length > 0 && h("section", { class: `card ${kind}` }, h("h2", {}, title), h("ul", {}, items.map((item) => h("li", {}, item))));

function meter(label, share, said) {
  const fill = h("i", {});
  fill.style.transform = `scaleX(${Math.min(1, Math.max(0, share))})`;
  return h("div", { class: "meter" }, h("div", { class: "row spread" }, h("span", {}, label), h("strong", {}, said)), h("div", { class: "track", "aria-hidden": "true" }, fill));
}

/** Bits per byte of the model beside those of gzip and xz on the same text: shorter is better understood. */
function results(trained) {
  const rows = known([
    ["this model", trained.bits_per_byte],
    ["xz", trained.xz_bits_per_byte],
    ["gzip", trained.gzip_bits_per_byte],
  ]);
  if (!rows.length) return false;
  const most = Math.max(...rows.map(([, value]) => value));
  return h(
    "section", { class: "card" },
    h("h2", {}, "Bits per byte of text it had not read"),
    rows.length > 1
      ? rows.map(([name, value]) => meter(name, value / most, value.toFixed(3)))
      : h("p", { class: "figure-alone" }, rows[0][1].toFixed(3)),
    h("p", { class: "quiet small" }, "Fewer is better: how briefly it can write that text down."),
  );
}

function speed(measured) {
  if (!measured?.tokens_per_second) return false;
  const { tokens_per_second: reached, limit_tokens_per_second: limit } = measured;
  const share = limit ? reached / limit : null;
  return h(
    "section", { class: "card" },
    h("h2", {}, "Speed here"),
    meter("tokens a second", share ?? 1, whole(reached)),
    h(
      "p", { class: "quiet small" },
      limit
        ? `${Math.round(100 * share)}% of the ${whole(limit)} that this machine’s memory allows, reading every weight once a token.`
        : "One answer at a time.",
    ),
  );
}

/** How often it was right, by skill: with no example shown, on kinds it trained on beside kinds held out from it. */
function skills(found) {
  const rows = (found ?? []).filter(({ count, shots }) => count > 0 && shots === 0);
  const named = { held_out: "never seen", trained: "trained on" };
  return (
    rows.length > 0 &&
    h(
      "section", { class: "card" },
      h("h2", {}, "What it was asked, with no example"),
      rows.map(({ skill, split, correct, count }) => meter(`${skill}, ${named[split] ?? split}`, correct / count, `${correct} of ${count}`)),
    )
  );
}

export function cardView(page) {
  const { model } = page;
  const card = model?.card ?? {};
  const trained = card.trained ?? {};
  const head = card.parameters ? `${short(card.parameters)} parameters` : "A language model";
  return h(
    "div",
    { class: "room-view" },
    h("header", { class: "head" }, page.menuButton(), h("h1", { class: "title" }, "Model")),
    h(
      "div",
      { class: "scroller" },
      h(
        "div",
        { class: "page wide-page" },
        h(
          "div", { class: "hero" },
          h("p", { class: "eyebrow" }, card.chat === false ? "continues texts" : "talks"),
          h("h2", {}, model?.id ?? "No model"),
          h("p", { class: "lead" }, `${head}${card.context ? `, reading ${whole(card.context)} tokens at once` : ""}.`),
        ),
        h(
          "div", { class: "cards" },
          table("Shape", [
            ["family", card.family],
            ["parameters", card.parameters && whole(card.parameters)],
            ["layers", card.layers],
            ["width", card.width],
            ["heads", card.heads],
            ["context", card.context && `${whole(card.context)} tokens`],
            ["vocabulary", card.vocab_size && `${whole(card.vocab_size)} tokens`],
            ["computed by", card.backend],
          ]),
          table("Training", [
            ["tokens seen", trained.tokens && whole(trained.tokens)],
            ["steps", trained.steps && whole(trained.steps)],
            ["time", trained.minutes && `${trained.minutes.toFixed(1)} minutes`],
            ["machine", trained.machine],
            ["seed", trained.seed],
            ["held-out loss", trained.held_out_loss && `${trained.held_out_loss.toFixed(3)} nats per token`],
          ]),
          results(trained),
          speed(card.speed),
          lines("It can", card.can, "can"),
          lines("It cannot", card.cannot, "cannot"),
          skills(card.skills),
        ),
      ),
    ),
  );
}
