// The page: its rooms, what they share, and the keys that work everywhere.

import { api } from "./api.js";
import { cardView } from "./card.js";
import { Chat } from "./chat.js";
import { ask, h, iconButton } from "./dom.js";
import { Lab } from "./lab.js";
import { Panel } from "./panel.js";
import { problem } from "./problem.js";
import { suiting } from "./settings.js";
import { Sidebar } from "./sidebar.js";

const KEYS = [
  ["Enter", "send; Shift Enter begins a new line"],
  ["Escape", "stop a reply, close the panel"],
  ["Ctrl K", "search conversations"],
  ["Ctrl Shift O", "new conversation"],
  ["Ctrl .", "replies as tokens, or as text"],
  ["← →", "from token to token"],
  ["Enter on a token", "its alternatives; Enter on one of them branches"],
  ["?", "this list"],
];

const main = document.getElementById("main");
const side = document.getElementById("side");
const scrim = document.getElementById("scrim");

const page = {
  model: null,
  menuButton: () => iconButton("menu", "Conversations", () => openSide(), { class: "ghost only-narrow" }),
  titled: (title) => (document.title = title ? `${title} · chatsmith` : "chatsmith"),
  listed: () => sidebar.refresh().then(() => sidebar.mark("chat", chat.conversation?.id)),
  begin: () => {
    if (location.hash === "#/chat") chat.open(null);
    location.hash = "#/chat";
    page.closeSide();
    sidebar.mark("chat", null);
  },
  renamed: (id, title) => {
    if (chat.conversation?.id !== id) return;
    chat.conversation.title = title;
    chat.title.textContent = title;
    page.titled(title);
  },
  closeSide: () => {
    document.body.classList.remove("with-side");
    scrim.hidden = true;
  },
};

function openSide() {
  document.body.classList.add("with-side");
  scrim.hidden = false;
  side.querySelector("a, button, input").focus();
}

page.panel = new Panel(document.getElementById("panel"), { onopen: () => {} });
const sidebar = new Sidebar(side, page);
const chat = new Chat(page);
const lab = (page.lab = new Lab(page));

async function go() {
  const [room, id] = location.hash.replace(/^#\//, "").split("/");
  const rooms = { lab: () => lab.show(), model: () => cardView(page) };
  const show = rooms[room];
  page.closeSide();
  if (show) {
    page.panel.close();
    page.titled(room === "lab" ? "Prompt lab" : "Model");
    main.replaceChildren(show());
    sidebar.mark(room === "model" ? "card" : room, null);
  } else {
    main.replaceChildren(chat.element);
    const wanted = id && /^[0-9a-f]+$/.test(id) ? id : null;
    sidebar.mark("chat", wanted);
    await chat.open(wanted);
    chat.draw();
  }
}

function help() {
  const rows = KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)));
  return ask({ title: "Keys", body: h("dl", { class: "keys" }, rows), confirm: "Close", cancel: null });
}

addEventListener("hashchange", go);
scrim.addEventListener("click", page.closeSide);
addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, select");
  const control = event.ctrlKey || event.metaKey;
  if (document.querySelector("dialog[open]")) return;
  if (control && event.key.toLowerCase() === "k") {
    openSide();
    sidebar.search.focus();
  } else if (control && event.shiftKey && event.key.toLowerCase() === "o") page.begin();
  else if (control && event.key === ".") chat.toggleTokens();
  else if (event.key === "Escape" && document.body.classList.contains("with-side")) page.closeSide();
  else if (event.key === "Escape" && chat.busy) chat.stop();
  else if (event.key === "Escape" && lab.busy) lab.stop();
  else if (event.key === "Escape" && page.panel.open) page.panel.close();
  else if (event.key === "?" && !typing) help();
  else return;
  event.preventDefault();
});

/** What is served, then the room that was asked for. */
async function begin() {
  try {
    const { data } = await api.models();
    page.model = data[0] ?? null;
    suiting(page.model?.card);
  } catch (error) {
    main.replaceChildren(h("div", { class: "alone" }, problem(error, begin)));
    return;
  }
  sidebar.refresh();
  await go();
  document.documentElement.dataset.ready = "yes";
}

begin();
