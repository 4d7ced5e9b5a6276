// How replies are drawn: the settings of a conversation, and those that new ones begin with.

import { grow, h } from "./dom.js";

const REMEMBERED = "chatsmith-settings";

const FIELDS = [
  {
    name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05,
    hint: "0 takes the likeliest token each time; 1 draws as the model thinks; above 1 is wilder.",
  },
  {
    name: "top_p", label: "Top-p", min: 0.05, max: 1, step: 0.01,
    hint: "Draw only from the likeliest tokens that together have this share.",
  },
];

let own = { temperature: 0.8, top_p: 1 };

/** Let settings begin with those that the model's card names: what its makers, or `chatsmith new`, found to suit it. */
export function suiting(card) {
  own = { ...own, ...card?.sampling };
}

/** The settings that a new conversation begins with: those used last, else the model's own. */
export function remembered() {
  const found = { ...own, max_tokens: null, seed: null };
  try {
    const kept = JSON.parse(localStorage.getItem(REMEMBERED) ?? "{}");
    for (const name of Object.keys(found)) if (typeof kept[name] === "number") found[name] = kept[name];
  } catch {
    localStorage.removeItem(REMEMBERED);
  }
  return found;
}

/** What is sent to the server; what is left empty is the server's choice. */
export const asked = (settings) => {
  const names = ["temperature", "top_p", "max_tokens", "seed"];
  return Object.fromEntries(names.filter((name) => Number.isFinite(settings[name])).map((name) => [name, settings[name]]));
};

/** The form. `onchange({settings?, system?})` is called when a field was changed and left. */
export function settingsView({ settings, system, context, onchange }) {
  const current = { ...settings };
  const commit = (name, value) => {
    current[name] = value;
    localStorage.setItem(REMEMBERED, JSON.stringify(current));
    onchange({ settings: { ...current } });
  };
  const systemBox = grow(
    h("textarea", {
      id: "system",
      rows: 3,
      maxlength: 32768,
      placeholder: "How the model should behave, if it was taught to heed it.",
      value: system,
      onchange: (event) => onchange({ system: event.target.value }),
    }),
  );
  return h(
    "form",
    { class: "settings", onsubmit: (event) => event.preventDefault() },
    h("div", { class: "field" }, h("label", { for: "system" }, "System prompt"), systemBox),
    FIELDS.map((field) => slider(field, current, commit)),
    number({
      name: "max_tokens", label: "Length", unit: "tokens at most", min: 1, max: context || 1048576,
      placeholder: "as long as fits", hint: "Where a reply is cut, if it does not end before.",
    }, current, commit),
    number({
      name: "seed", label: "Seed", unit: "", min: 0, max: 2 ** 53 - 1, placeholder: "a new one each time",
      hint: "The same seed, settings and words give the same reply, token for token.",
    }, current, commit),
  );
}

function slider({ name, label, min, max, step, hint }, current, commit) {
  const value = current[name] ?? own[name];
  const shown = h("output", { for: name }, value.toFixed(2));
  const input = h("input", {
    type: "range", id: name, min, max, step, value, "aria-describedby": `${name}-hint`,
    oninput: () => (shown.textContent = Number(input.value).toFixed(2)),
    onchange: () => commit(name, Number(input.value)),
  });
  return h(
    "div", { class: "field" },
    h("div", { class: "row spread" }, h("label", { for: name }, label), shown),
    input,
    h("p", { class: "hint", id: `${name}-hint` }, hint),
  );
}

function number({ name, label, unit, min, max, placeholder, hint }, current, commit) {
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const input = h("input", {
    type: "text", inputmode: "numeric", id: name, placeholder, "aria-describedby": `${name}-hint`,
    value: current[name] ?? "",
    onchange: () => {
      const text = input.value.trim();
      const value = Number(text);
      const fine = text === "" || (/^\d+$/.test(text) && value >= min && value <= max);
      input.setAttribute("aria-invalid", String(!fine));
      wrong.hidden = fine;
      wrong.textContent = fine ? "" : `A whole number from ${min} to ${max.toLocaleString("en")}, or nothing.`;
      if (fine) commit(name, text === "" ? null : value);
    },
  });
  return h(
    "div", { class: "field" },
    h("label", { for: name }, label, unit && h("span", { class: "unit" }, ` ${unit}`)),
    input, wrong,
    h("p", { class: "hint", id: `${name}-hint` }, hint),
  );
}
