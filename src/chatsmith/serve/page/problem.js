// What went wrong, in words, with a way on.

import { h } from "./dom.js";

const TITLES = { 0: "No answer", 401: "A key is needed", 413: "Too long", 429: "The server is busy", 503: "The server cannot take this now" };

/** A note about an error with a button to try again; after a 429 the button counts down what the server asked for. */
export function problem(error, again) {
  const wait = Math.min(120, Math.ceil(error.wait ?? 0));
  const button = h("button", { type: "button", class: "plain", onclick: () => (note.remove(), again()) }, "Try again");
  const note = h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, TITLES[error.status] ?? "That did not work"),
    h("p", {}, error.message),
    again && button,
  );
  let left = wait;
  const count = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0 && (left === wait || note.isConnected)) setTimeout(count, 1000);
    left -= 1;
  };
  if (wait) count();
  return note;
}
