// Elements without markup: text can only ever become text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element: h("p", {class: "note", onclick: f}, "text", other, …). */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** An element of a drawing. */
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

const PATHS = {
  plus: "M10 4v12M4 10h12",
  search: "M9 3.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 0 1 0-11M13.2 13.2L17 17",
  menu: "M3 6h14M3 10h14M3 14h14",
  send: "M10 16V4M4.5 9.5L10 4l5.500 5.500",
  stop: "M6 6h8v8H6z",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4z",
  edit: "M4 16l.8-3.600L13 4.200l2.800 2.800L7.600 15.200z",
  again: "M15.500 8A6 6 0 1 0 16 11.500M16 4v4.200h-4.200",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10.500h6.600L14 6",
  close: "M5 5l10 10M15 5L5 15",
  left: "M12 5l-5 5l5 5",
  right: "M8 5l5 5l-5 5",
  down: "M10 4v12M4.500 10.500L10 16l5.500-5.500",
  tokens: "M3 5h6v4H3zM11 5h6v4h-6zM3 11h3v4H3zM8 11h9v4H8z",
  branch: "M6 4v12M6 12c0-4 8-2 8-6M6 4a1 1 0 1 0 0 .1M14 6a1 1 0 1 0 0-.1M6 16a1 1 0 1 0 0 .1",
  sliders: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  sun: "M10 6.500a3.500 3.500 0 1 1 0 7a3.500 3.500 0 0 1 0-7M10 2v1.500M10 16.500V18M2 10h1.500M16.500 10H18M4.300 4.300l1.100 1.100M14.600 14.600l1.100 1.100M15.700 4.300l-1.100 1.100M5.400 14.600l-1.100 1.100",
  moon: "M16 11.500A6.500 6.500 0 1 1 8.500 4a5.200 5.200 0 0 0 7.500 7.500z",
  half: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
  save: "M10 3v9M6 8.500l4 4l4-4M4 16.500h12",
  open: "M10 13V4M6 7.500l4-4l4 4M4 16.500h12",
  chat: "M4 5h12v8H9l-3.500 3v-3H4z",
  lab: "M8 3h4M9 3v5L4.500 16h11L11 8V3M6.500 13h7",
  card: "M4 4h12v12H4zM7 8h6M7 11h6M7 13.500h3",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  check: "M4.500 10.500l3.500 3.500l7.500-8",
  play: "M7 4.500v11l8.500-5.500z",
};

/** A line drawing of 20 × 20 that says nothing to a screen reader: what holds it has the label. */
export const icon = (name) =>
  svg(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: PATHS[name] }),
  );

/** A button with a drawing; its label is read aloud and shown as a hint. */
export const iconButton = (name, label, onclick, properties = {}) =>
  h("button", { type: "button", class: "ghost", "aria-label": label, title: label, onclick, ...properties }, icon(name));

/** A short message at the foot of the page, with one thing to do about it, if given. */
export function toast(text, action, onaction) {
  const note = h("div", { class: "toast" }, h("span", {}, text));
  const close = () => note.remove();
  if (action)
    note.append(
      h("button", { type: "button", onclick: () => (close(), onaction()) }, action),
    );
  document.getElementById("toasts").replaceChildren(note);
  setTimeout(close, action ? 9000 : 3500);
}

/** Ask in a dialog; resolves to what `read` gives when confirmed, or null. Without `cancel` there is nothing to refuse. */
export function ask({ title, body, confirm, cancel = "Cancel", danger = false, read = () => true }) {
  return new Promise((resolve) => {
    let answer = null;
    const done = h("button", { type: "submit", class: danger ? "primary danger" : "primary" }, confirm);
    const form = h(
      "form",
      { onsubmit: (event) => (event.preventDefault(), (answer = read()), dialog.close()) },
      h("h2", {}, title),
      body,
      h(
        "div",
        { class: "row end" },
        cancel && h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, cancel),
        done,
      ),
    );
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-label": title, onclose: () => (dialog.remove(), resolve(answer)) },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Save a text as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Let a text box be as tall as its text. The style does it (field-sizing) where the browser can. */
export function grow(box) {
  if (CSS.supports("field-sizing", "content")) return box;
  const fit = () => {
    if (!box.isConnected) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  };
  box.addEventListener("input", fit);
  box.addEventListener("focus", fit);
  return box;
}
