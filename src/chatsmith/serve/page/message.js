// One message as it is shown: its words or its tokens, and what one can do with it.

import { grow, h, icon, iconButton, toast } from "./dom.js";
import { markdown } from "./markdown.js";
import { markToken, tokenLine } from "./tokens.js";

/** Put a text on the clipboard, and say so. */
export const copyText = (text) =>
  navigator.clipboard.writeText(text).then(
    () => toast("Copied"),
    () => toast("The browser did not allow copying"),
  );

const labelled = (name, label, text, onclick, properties = {}) =>
  h("button", { type: "button", class: "action", title: label, onclick, ...properties }, icon(name), h("span", {}, text));

/**
 * `actions`: edit(message, text), again(message), walk(id), look(message, place, enter). `place` among its siblings is
 * {ids, at}. While a reply is written, `grown()` shows what has come since.
 */
export class MessageView {
  #frame = 0;

  constructor(message, actions) {
    Object.assign(this, { message, actions, asTokens: false, editing: false });
    this.body = h("div", { class: "body" });
    this.foot = h("div", { class: "foot" });
    this.element = h(
      "article",
      { class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Reply" },
      this.body,
      this.foot,
    );
    this.draw();
  }

  /** Show the words or the tokens of a reply. */
  show(asTokens) {
    const wanted = asTokens && this.message.tokens.length > 0;
    if (wanted === this.asTokens) return;
    this.asTokens = wanted;
    this.draw();
  }

  draw() {
    const { message } = this;
    if (this.editing) return;
    this.tokens = null;
    if (this.asTokens) {
      this.tokens = tokenLine(message.tokens, {
        onlook: (place) => this.look(place),
        onopen: (place) => this.look(place, true),
        branchAt: message.settings?.branch_at ?? -1,
      });
      this.body.replaceChildren(this.tokens.line);
    } else if (message.role === "user") this.body.replaceChildren(h("p", { class: "said" }, message.content));
    else this.body.replaceChildren(h("div", { class: "prose" }, markdown(message.content)));
    if (message.id === undefined) this.body.append(h("span", { class: "caret", "aria-hidden": "true" }));
  }

  /** Look at one of the tokens shown; `enter` moves the focus to its alternatives. */
  look(place, enter = false) {
    this.actions.look(this.message, place, enter);
    markToken(this.tokens.line, place);
  }

  /** More of the reply has come: draw it with the next frame, however many tokens come until then. */
  grown() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.asTokens) this.tokens.grown();
      else replaceTail(this.body.firstChild, markdown(this.message.content));
    });
  }

  /** What stands under the message: its siblings, what made it, what one can do. */
  drawFoot({ ids, at }, busy) {
    const { message, actions } = this;
    const parts = [];
    if (ids.length > 1)
      parts.push(
        h(
          "div",
          { class: "siblings", role: "group", "aria-label": "Branches here" },
          iconButton("left", "Branch before", () => actions.walk(ids[at - 1]), { disabled: at === 0 || busy }),
          h("span", {}, `${at + 1} / ${ids.length}`),
          iconButton("right", "Branch after", () => actions.walk(ids[at + 1]), { disabled: at === ids.length - 1 || busy }),
        ),
      );
    if (message.role === "assistant") {
      if (message.tokens.length)
        parts.push(
          labelled("tokens", "Show this reply as tokens, or as text", this.asTokens ? "Text" : "Tokens", () => {
            this.show(!this.asTokens);
            this.drawFoot({ ids, at }, busy);
            this.foot.querySelector('[aria-pressed]')?.focus();
            if (this.asTokens) actions.tokensShown();
          }, { "aria-pressed": String(this.asTokens) }),
        );
      parts.push(labelled("again", "Ask again, in a branch", "Again", () => actions.again(message), { disabled: busy }));
    } else parts.push(labelled("edit", "Say it differently, in a branch", "Edit", () => this.edit(), { disabled: busy }));
    parts.push(labelled("copy", "Copy the text", "Copy", () => copyText(message.content)));
    if (message.role === "assistant") parts.push(h("span", { class: "made" }, madeBy(message)));
    this.foot.replaceChildren(...parts);
  }

  /** A text box in the message's place. */
  edit() {
    this.editing = true;
    const box = grow(h("textarea", { "aria-label": "Your message", rows: 1, value: this.message.content }));
    const done = (text) => {
      this.editing = false;
      this.draw();
      this.foot.hidden = false;
      if (text && text !== this.message.content) this.actions.edit(this.message, text);
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") done(null);
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        done(box.value.trim());
      }
    });
    this.foot.hidden = true;
    this.body.replaceChildren(
      h(
        "div",
        { class: "editing" },
        box,
        h(
          "div",
          { class: "row end" },
          h("button", { type: "button", class: "plain", onclick: () => done(null) }, "Cancel"),
          h("button", { type: "button", class: "primary", onclick: () => done(box.value.trim()) }, "Send"),
        ),
      ),
    );
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }
}

/** Make what an element holds equal to a fragment, and touch only what follows the blocks that are the same already. */
function replaceTail(element, fragment) {
  let old = element.firstChild;
  while (old && fragment.firstChild && old.isEqualNode(fragment.firstChild)) {
    old = old.nextSibling;
    fragment.firstChild.remove();
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
  element.append(fragment);
}

/** What made a reply, in few words: its length, speed, temperature and seed. */
function madeBy({ tokens, settings = {} }) {
  const parts = [];
  if (tokens.length) parts.push(`${tokens.length} token${tokens.length === 1 ? "" : "s"}`);
  if (settings.tokens_per_second) parts.push(`${Math.round(settings.tokens_per_second)}/s`);
  if (Number.isFinite(settings.temperature)) parts.push(`T ${settings.temperature}`);
  if (Number.isFinite(settings.seed)) parts.push(`seed ${settings.seed}`);
  if (settings.left_out) parts.push(`${settings.left_out} oldest messages did not fit`);
  if (settings.ended === "stopped") parts.push("stopped");
  else if (settings.ended === "length") parts.push("cut at its length");
  return parts.join(" · ");
}
