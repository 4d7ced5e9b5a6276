// The conversation: read, written to, branched.

import { api } from "./api.js";
import { branchesView } from "./branches.js";
import { short } from "./card.js";
import { grow, h, iconButton, toast } from "./dom.js";
import { problem } from "./problem.js";
import { MessageView } from "./message.js";
import { Speaker, storable, withoutOldest, write } from "./reply.js";
import { remembered, settingsView } from "./settings.js";
import { ENDING, legend } from "./tokens.js";
import { Tree } from "./tree.js";

const IDEAS = [
  ["Tell me a story", "Tell me a story about a dog and a boat."],
  ["Do a sum", "What is 7 plus 5?"],
  ["Speak French", "How do you say “the cat” in French?"],
  ["Say hello", "Hello! What can you do?"],
];
const NEAR = 80; // pixels from the end within which new words are followed
const WIDE = matchMedia("(min-width: 1100px)");

export class Chat {
  #views = new Map(); // a message's id → its view
  #control = null;
  #saying = false; // what was said is being stored

  constructor(page) {
    this.page = page;
    this.asTokens = false;
    this.title = h("h1", { class: "title" });
    this.tokensButton = iconButton("tokens", "Show replies as tokens (Ctrl .)", () => this.toggleTokens(), {
      "aria-pressed": "false",
    });
    this.head = h(
      "header",
      { class: "head" },
      page.menuButton(),
      this.title,
      h(
        "div",
        { class: "row tools" },
        this.tokensButton,
        iconButton("branch", "Branches of this conversation", () => page.panel.toggle("branches")),
        iconButton("sliders", "Settings and system prompt", () => page.panel.toggle("settings")),
      ),
    );
    this.log = h("div", { class: "log", "aria-label": "Messages", role: "region" });
    this.scroller = h("div", { class: "scroller", onscroll: () => this.#scrolled() }, this.log);
    this.latest = iconButton("down", "To the latest words", () => this.#toEnd(true), { class: "latest", hidden: true });
    this.box = grow(
      h("textarea", {
        id: "say",
        rows: 1,
        placeholder: "Say something",
        "aria-label": "Your message",
        enterkeyhint: "send",
        onkeydown: (event) => this.#key(event),
        oninput: () => this.#button(),
      }),
    );
    this.sendButton = h("button", { type: "submit", class: "send", "aria-label": "Send", title: "Send (Enter)" });
    this.composer = h(
      "form",
      { class: "composer", onsubmit: (event) => (event.preventDefault(), this.#submit()) },
      this.box,
      this.sendButton,
    );
    this.foot = h(
      "footer",
      { class: "dock" },
      this.latest,
      this.composer,
      h("p", { class: "promise" }, "It says what is likely, not what is true. Open any word to see why it was chosen."),
    );
    this.element = h("div", { class: "chat" }, this.head, this.scroller, this.foot);
    addEventListener("pagehide", () => this.#saveLast());
  }

  get busy() {
    return this.#control !== null || this.#saying;
  }

  /** Show a conversation, or with null the beginning of a new one. */
  async open(id) {
    if (id !== null && id === this.conversation?.id) return;
    this.stop();
    await this.settled;
    this.#views.clear();
    this.page.panel.word.clear();
    this.conversation = { id: null, title: "", system: this.conversation?.system ?? "", settings: remembered() };
    if (id === null) this.conversation.system = "";
    this.tree = new Tree();
    this.draw();
    if (id !== null) {
      try {
        const found = await api.conversation(id);
        this.conversation = { ...found, settings: { ...remembered(), ...found.settings } };
        this.tree = new Tree(found.messages, found.leaf);
        this.draw();
        this.#toEnd(true);
      } catch (error) {
        if (error.status === 404) {
          toast("There is no such conversation any more.");
          location.hash = "#/chat";
        } else this.#trouble(error, () => this.open(id));
      }
    }
    if (WIDE.matches) this.box.focus({ preventScroll: true });
  }

  draw() {
    const { conversation, tree } = this;
    this.title.textContent = conversation.title || "New conversation";
    this.page.titled(conversation.title);
    this.foot.hidden = this.page.model?.card?.chat === false; // nothing that is said here would be answered
    const path = tree.path();
    this.log.replaceChildren(...(path.length ? this.#messages(path) : [this.#welcome()]));
    this.#button();
    this.page.panel.offer({
      branches: () => branchesView(tree, (id) => this.walk(tree.end(id))),
      settings: () =>
        settingsView({
          settings: conversation.settings,
          system: conversation.system,
          context: this.page.model?.card?.context,
          onchange: (changes) => this.#change(changes),
        }),
    });
  }

  #messages(path) {
    const parts = path.map((message) => {
      const view = this.#view(message);
      const ids = this.tree.siblings(message.id);
      view.drawFoot({ ids, at: ids.indexOf(message.id) }, this.busy);
      return view.element;
    });
    if (this.asTokens) parts.unshift(legend());
    return parts;
  }

  #view(message) {
    if (!this.#views.has(message.id)) {
      const view = new MessageView(message, {
        edit: (old, text) => this.#say(text, old.parent),
        again: (old) => this.#reply(old.parent),
        walk: (id) => this.walk(this.tree.end(id)),
        look: (shown, place, enter) => this.page.panel.look(this.#source(shown), place, { enter }),
        tokensShown: () => WIDE.matches && this.page.panel.tab !== "word" && this.page.panel.show("word"),
      });
      view.show(this.asTokens);
      this.#views.set(message.id, view);
    }
    return this.#views.get(message.id);
  }

  /** What the panel needs to know of a reply whose tokens are looked at. */
  #source(message) {
    this.sources ??= new WeakMap();
    if (!this.sources.has(message))
      this.sources.set(message, {
        key: message.id ?? "new",
        request: { messages: withoutOldest(this.#messagesTo(message.parent), message.settings?.left_out) },
        tokens: message.tokens,
        settings: message.settings ?? {},
        branch: (place, candidate) => this.branch(message, place, candidate),
      });
    return this.sources.get(message);
  }

  #messagesTo(id) {
    const { system } = this.conversation;
    const said = this.tree.path(id).map(({ role, content }) => ({ role, content }));
    return system.trim() ? [{ role: "system", content: system }, ...said] : said;
  }

  #welcome() {
    const { model } = this.page;
    if (model && model.card?.chat === false)
      return h(
        "div", { class: "welcome" },
        h("h2", {}, "This model continues texts"),
        h("p", {}, `${model.id} was not taught to talk. The prompt lab is where it is at home.`),
        h("p", {}, h("a", { class: "button", href: "#/lab" }, "Open the prompt lab")),
      );
    return h(
      "div", { class: "welcome" },
      h("h2", {}, "Talk with ", h("span", { class: "name" }, model?.id ?? "your model")),
      h("p", {}, `A language model${sized(model)}. It runs on the server of this page, and nothing you write goes further. Say something, then open any word of the reply to see how it was chosen.`),
      h(
        "ul", { class: "ideas" },
        IDEAS.map(([name, text]) =>
          h("li", {}, h("button", { type: "button", onclick: () => this.#say(text, null) }, h("strong", {}, name), h("span", {}, text))),
        ),
      ),
    );
  }

  toggleTokens() {
    this.asTokens = !this.asTokens;
    this.tokensButton.setAttribute("aria-pressed", String(this.asTokens));
    for (const view of this.#views.values()) view.show(this.asTokens);
    this.log.replaceChildren(...(this.tree.byId.size ? this.#messages(this.tree.path()) : [this.#welcome()]));
    if (this.live) this.log.append(this.live.element);
    if (this.asTokens && WIDE.matches && this.tree.byId.size) this.page.panel.show("word");
    else if (!this.asTokens && this.page.panel.tab === "word") this.page.panel.close();
  }

  /** Go to another end of the tree. */
  walk(id) {
    if (this.busy) return;
    this.tree.leaf = id;
    this.draw();
    this.page.panel.refresh("branches");
    api.change(this.conversation.id, { leaf: id }).catch(() => {}); // where one reads is remembered if it can be
  }

  async #change(changes) {
    Object.assign(this.conversation, changes);
    if (!this.conversation.id) return;
    try {
      await api.change(this.conversation.id, changes);
    } catch (error) {
      toast(error.message);
    }
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!this.busy) this.#submit();
    }
  }

  #submit() {
    if (this.busy) return this.stop();
    const text = this.box.value.trim();
    if (!text) return undefined;
    this.box.value = "";
    this.box.dispatchEvent(new Event("input"));
    return this.#say(text, this.tree.leaf);
  }

  #button() {
    const [name, label] = this.busy ? ["stop", "Stop (Escape)"] : ["send", "Send (Enter)"];
    const fresh = iconButton(name, label, null);
    this.sendButton.replaceChildren(...fresh.childNodes);
    this.sendButton.setAttribute("aria-label", this.busy ? "Stop" : "Send");
    this.sendButton.title = label;
    this.sendButton.disabled = !this.busy && !this.box.value.trim();
  }

  /** Store what was said after a message, then ask for the reply. */
  async #say(content, parent) {
    if (this.busy) return;
    this.#saying = true;
    try {
      if (!this.conversation.id) {
        const { system, settings } = this.conversation;
        const made = await api.create({ title: titleOf(content), system, settings });
        Object.assign(this.conversation, { id: made.id, title: made.title });
        history.replaceState(null, "", `#/chat/${made.id}`);
        this.page.listed();
      }
      const message = await api.add(this.conversation.id, { parent, role: "user", content });
      this.tree.add(message);
      this.#saying = false;
    } catch (error) {
      this.#saying = false;
      if (!this.box.value) this.box.value = content; // nothing typed is lost
      this.#button();
      this.#trouble(error, () => (this.box.value === content && (this.box.value = ""), this.#say(content, parent)));
      return;
    }
    await this.#reply(this.tree.leaf);
  }

  /** Go on from another token in a place of a reply, in a branch of its own. */
  async branch(message, place, candidate) {
    if (this.busy || message.id === undefined) return;
    const shown = this.#view(message).asTokens;
    if (!WIDE.matches) this.page.panel.close(); // it lies over what comes now
    const alternatives = message.tokens[place][3];
    const known = alternatives.find(([id]) => id === candidate.id)?.[2];
    const logprob = known ?? Math.log(candidate.raw ?? candidate.p ?? 1e-9);
    const tokens = [...message.tokens.slice(0, place), [candidate.id, candidate.token, logprob, alternatives]];
    try {
      const ends = ENDING.test(candidate.token); // nothing follows it, and it is no text
      const { text } = await api.detokenize(tokens.slice(0, ends ? -1 : undefined).map(([id]) => id));
      const settings = { branch_at: place, ...(ends && { ended: "stop" }) };
      await this.#reply(message.parent, { content: text, tokens, settings }, shown);
      const made = this.tree.byId.get(this.tree.leaf);
      if (shown && WIDE.matches && made?.settings?.branch_at === place) this.#view(made).look(place);
    } catch (error) {
      toast(error.message);
    }
  }

  /** Ask for a reply to a message, show it as it comes, store it. `begun` is a reply that has its first tokens. */
  #reply(parent, begun = { content: "", tokens: [], settings: {} }, asTokens = this.asTokens) {
    this.settled = this.#replying(parent, begun, asTokens);
    return this.settled;
  }

  async #replying(parent, begun, asTokens) {
    const { conversation, tree } = this;
    const reply = { parent, role: "assistant", ...begun };
    const control = new AbortController();
    this.#control = control;
    tree.leaf = parent;
    this.draw();
    this.live = new MessageView(reply, { look: () => {} });
    this.live.element.setAttribute("aria-busy", "true");
    this.live.show(asTokens);
    this.log.append(this.live.element);
    this.#toEnd(true);
    const speaker = new Speaker(document.getElementById("spoken"));
    speaker.say("Replying");
    let trouble = null;
    try {
      if (!begun.settings.ended) await write({
        messages: this.#messagesTo(parent),
        model: this.page.model?.id,
        context: this.page.model?.card?.context,
        settings: conversation.settings,
        reply,
        signal: control.signal,
        grown: () => {
          if (asTokens || this.asTokens) this.live.show(true);
          this.live.grown();
          speaker.follow(reply.content);
          this.#toEnd();
        },
      });
    } catch (error) {
      trouble = error;
    }
    this.pending = reply.tokens.length > begun.tokens.length || begun.tokens.length ? reply : null;
    if (this.pending || (!trouble && reply.content)) trouble = (await this.#store(conversation, tree, reply)) ?? trouble;
    this.#control = this.live = this.pending = null;
    if (tree !== this.tree) return;
    speaker.follow(reply.content, true);
    if (asTokens) this.#view(tree.byId.get(tree.leaf)).show(true);
    this.draw();
    this.#toEnd();
    this.page.panel.refresh("branches");
    if (trouble) this.#trouble(trouble, () => this.#reply(parent, begun));
  }

  /** Store a reply; what went wrong, or null. A reply that could not be stored is shown all the same. */
  async #store(conversation, tree, reply) {
    const { parent, role, content, tokens, settings } = reply;
    let trouble = null;
    try {
      const body = { parent, role, content, tokens: storable(tokens), settings };
      tree.add(await api.add(conversation.id, body));
    } catch (error) {
      trouble = error;
      tree.add({ ...reply, id: `unsaved-${tree.byId.size}` });
    }
    this.page.listed();
    return trouble;
  }

  /** The page is left while a reply is written: what has come is stored, without its tokens. */
  #saveLast() {
    if (!this.busy || !this.live?.message.content) return;
    const { parent, role, content } = this.live.message;
    const settings = { ...this.live.message.settings, ended: "stopped" };
    this.#control.abort();
    api.addLast(this.conversation.id, { parent, role, content: content.slice(0, 12_000), settings }).catch(() => {});
  }

  stop() {
    this.#control?.abort();
  }

  #trouble(error, again) {
    this.log.querySelector(".problem")?.remove();
    this.log.append(problem(error, again));
    this.#toEnd(true);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.latest.hidden = this.following;
  }

  /** Scroll to the end: always, or only where the end is what is read. */
  #toEnd(always = false) {
    if (always) this.following = true;
    if (this.following) requestAnimationFrame(() => (this.scroller.scrollTop = this.scroller.scrollHeight));
  }
}

const sized = (model) => (model?.card?.parameters ? ` of ${short(model.card.parameters)} parameters` : "");

const titleOf = (text) => {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 60 ? `${line.slice(0, 59).replace(/\s+\S*$/, "")}…` : line;
};
