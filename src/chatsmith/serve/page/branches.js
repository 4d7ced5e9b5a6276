// The tree of a conversation, as a list that forks: each branch is indented under the message it leaves from.

import { h } from "./dom.js";

const snippet = (text) => {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 80)}…` : line || "(empty)";
};

/** The tree, with the path that is read marked; `onwalk(id)` goes to a message and on to its newest end. */
export function branchesView(tree, onwalk) {
  if (!tree.byId.size)
    return h(
      "div", { class: "nothing" },
      h("p", { class: "lead" }, "No branches yet"),
      h("p", {}, "Ask again, edit a message, or choose another token: the conversation goes on in a branch, and nothing is lost."),
    );
  const path = new Set(tree.path().map((message) => message.id));
  const list = h("div", { class: "forest", onkeydown: arrows }, chain(tree, tree.children.get(null), path, onwalk));
  const count = tree.branches;
  return h(
    "div", { class: "branches" },
    h("p", { class: "eyebrow" }, `${tree.byId.size} messages, ${count} ${count === 1 ? "end" : "ends"}`),
    list,
  );
}

/** A run of messages without a fork stays in one column; where it forks, each branch gets a column of its own. */
function chain(tree, ids, path, onwalk) {
  const items = [];
  let at = ids;
  while (at.length === 1) {
    items.push(h("li", {}, node(tree, at[0], path, onwalk)));
    at = tree.children.get(at[0]);
  }
  for (const id of at)
    items.push(
      h("li", { class: "fork" }, chainFrom(tree, id, path, onwalk)),
    );
  return h("ul", { class: "chain" }, items);
}

function chainFrom(tree, id, path, onwalk) {
  const inner = chain(tree, tree.children.get(id), path, onwalk);
  inner.prepend(h("li", {}, node(tree, id, path, onwalk)));
  return inner;
}

function node(tree, id, path, onwalk) {
  const { role, content, settings } = tree.byId.get(id);
  const turned = Number.isInteger(settings?.branch_at) ? `from token ${settings.branch_at + 1}` : null;
  return h(
    "button",
    {
      type: "button",
      class: `node ${role}${path.has(id) ? " on" : ""}`,
      "aria-current": id === tree.leaf ? "true" : null,
      onclick: () => onwalk(id),
      data: { id },
    },
    h("span", { class: "who" }, role === "user" ? "You" : "Reply", turned && h("em", {}, turned)),
    h("span", { class: "what" }, snippet(content)),
  );
}

function arrows(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const nodes = [...event.currentTarget.querySelectorAll(".node")];
  nodes[nodes.indexOf(document.activeElement) + step]?.focus();
}
