// Markdown as nodes. Text becomes text, never markup; a link leads only to http, https or mailto; an image is not loaded
// but named, with a link. A part of CommonMark that models write: headings, lists, quotes, code, tables, emphasis, links.

import { h, iconButton, toast } from "./dom.js";

const DEEPEST = 8; // quotes in lists in quotes …
const LONGEST_LABEL = 2000;
const MARK = /^[!-/:-@[-`{-~]$/; // what a backslash may stand before
const ITEM = /^( {0,8})([-*+]|\d{1,9}[.)])( +|$)(.*)$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$/;
const DIVIDER = /^ *\|?(?: *:?-+:? *\|)+ *(?::?-+:? *)?$/;

/** A document as a fragment of nodes. */
export function markdown(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0));
  return fragment;
}

function blocks(lines, depth) {
  const found = [];
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) found.push(h("p", {}, inline(paragraph.join("\n").trim())));
    paragraph = [];
  };
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at];
    let match;
    if (!line.trim()) flush();
    else if ((match = FENCE.exec(line))) {
      flush();
      const end = closing(lines, at, match[1]);
      found.push(codeBlock(lines.slice(at + 1, end).join("\n"), match[2]));
      at = end;
    } else if ((match = HEADING.exec(line))) {
      flush();
      found.push(h(`h${Math.min(6, match[1].length + 2)}`, {}, inline(match[2]))); // the page has its own first two
    } else if (RULE.test(line)) {
      flush();
      found.push(h("hr"));
    } else if (/^ {0,3}>/.test(line) && depth < DEEPEST) {
      flush();
      const end = lines.findIndex((other, place) => place > at && !/^ {0,3}>/.test(other));
      const inner = lines.slice(at, end < 0 ? lines.length : end);
      found.push(h("blockquote", {}, blocks(inner.map((other) => other.replace(/^ {0,3}> ?/, "")), depth + 1)));
      at += inner.length - 1;
    } else if ((match = ITEM.exec(line)) && depth < DEEPEST && startsList(match, paragraph)) {
      flush();
      const [list, used] = listFrom(lines.slice(at), depth);
      found.push(list);
      at += used - 1;
    } else if (line.includes("|") && !paragraph.length && DIVIDER.test(lines[at + 1] ?? "")) {
      const [table, used] = tableFrom(lines.slice(at));
      found.push(table);
      at += used - 1;
    } else paragraph.push(line);
  }
  flush();
  return found;
}

/** A number in the middle of a paragraph ("in\n1984. Then") begins no list; a first one or a bullet does. */
const startsList = ([, , sign, , text], paragraph) => !paragraph.length || (text !== "" && !/^\d/.test(sign));

function closing(lines, start, fence) {
  const mark = fence[0];
  const end = lines.findIndex(
    (line, place) => place > start && line.trim().length >= fence.length && [...line.trim()].every((c) => c === mark),
  );
  return end < 0 ? lines.length : end; // a block that is still being written goes on to the end
}

function codeBlock(text, language) {
  const copy = iconButton("copy", "Copy code", () =>
    navigator.clipboard.writeText(text).then(() => toast("Copied"), () => toast("The browser did not allow copying")),
  );
  const head = h("div", { class: "code-head" }, h("span", {}, language || "text"), copy);
  return h("div", { class: "code" }, head, h("pre", { tabindex: "0" }, h("code", {}, text)));
}

function listFrom(lines, depth) {
  const [, indent, sign] = ITEM.exec(lines[0]);
  const ordered = /^\d/.test(sign);
  const items = [];
  let used = 0;
  for (; used < lines.length; used += 1) {
    const match = ITEM.exec(lines[used]);
    const beside = match && match[1].length <= indent.length + 1;
    if (beside && /^\d/.test(match[2]) !== ordered) break;
    if (beside) items.push({ width: match[1].length + match[2].length + 1, lines: [match[4]] });
    else {
      const blank = !lines[used].trim();
      const next = lines[used + 1] ?? "";
      if (blank && !/^ {2,}\S/.test(next) && !ITEM.test(next)) break;
      if (!blank && !/^\s/.test(lines[used]) && !lines[used - 1].trim()) break;
      const { width, lines: kept } = items.at(-1);
      kept.push(lines[used].slice(Math.min(width, lines[used].length - lines[used].trimStart().length)));
    }
  }
  const start = ordered && Number.parseInt(sign, 10) !== 1 ? Number.parseInt(sign, 10) : null;
  const list = h(ordered ? "ol" : "ul", { start }, items.map((item) => h("li", {}, itemBody(item.lines, depth))));
  return [list, used];
}

/** An item of one paragraph is shown without the paragraph's space. */
function itemBody(lines, depth) {
  const inner = blocks(lines, depth + 1);
  return inner.flatMap((node, place) => (place === 0 && node.tagName === "P" ? [...node.childNodes] : [node]));
}

const cells = (line) =>
  line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));

function tableFrom(lines) {
  const sides = cells(lines[1]).map((cell) => (/^:.*:$/.test(cell) ? "center" : /:$/.test(cell) ? "right" : "left"));
  const row = (line, tag) =>
    h("tr", {}, cells(line).slice(0, sides.length).map((cell, place) => h(tag, { class: `to-${sides[place]}` }, inline(cell))));
  let end = 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const body = lines.slice(2, end).map((line) => row(line, "td"));
  return [h("div", { class: "wide", tabindex: "0" }, h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, body))), end];
}

/** A link's address if it leads where a link may, else null. */
export function safeAddress(text) {
  try {
    const address = new URL(text);
    return ["http:", "https:", "mailto:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null; // relative ones too: they would lead into this server
  }
}

const link = (address, children) =>
  h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, children);

/** Emphasis, code, links and text of one paragraph. */
export function inline(text, depth = 0) {
  const nodes = [];
  const absent = new Set(); // marks of which no other follows: not looked for again, so that time stays linear
  let plain = "";
  let at = 0;
  const push = (node, end) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
    at = end;
  };
  const find = (mark, from) => {
    if (absent.has(mark)) return -1;
    const place = text.indexOf(mark, from);
    if (place < 0) absent.add(mark);
    return place;
  };
  while (at < text.length) {
    const here = text[at];
    if (here === "\\" && MARK.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    if (here === "`") {
      const [run] = /^`+/.exec(text.slice(at, at + 64));
      const end = find(run, at + run.length);
      if (end > 0 && text[end + run.length] !== "`") {
        push(h("code", {}, text.slice(at + run.length, end).replace(/^ (.*\S.*) $/, "$1")), end + run.length);
        continue;
      }
      plain += run;
      at += run.length;
      continue;
    }
    if (depth < DEEPEST) {
      const found = emphasis(text, at, find) ?? bracket(text, at) ?? bare(text, at);
      if (found) {
        const { tag, label, address, end } = found;
        if (tag) push(h(tag, {}, inline(label, depth + 1)), end);
        else push(link(address, found.raw ? label : inline(label, DEEPEST - 1)), end);
        continue;
      }
    }
    plain += here;
    at += 1;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function emphasis(text, at, find) {
  const here = text[at];
  if (here !== "*" && here !== "_" && here !== "~") return null;
  const twice = text[at + 1] === here;
  if (here === "~" && !twice) return null;
  const mark = twice ? here + here : here;
  const from = at + mark.length;
  if (/\s/.test(text[from] ?? " ") || (here === "_" && /\w/.test(text[at - 1] ?? ""))) return null;
  let end = find(mark, from + 1);
  if (end > 0 && !twice && text[end + 1] === here) end = text.indexOf(mark, end + 2); // past a strong part inside
  if (end < 0 || /\s/.test(text[end - 1]) || (here === "_" && /\w/.test(text[end + mark.length] ?? ""))) return null;
  const tag = here === "~" ? "del" : twice ? "strong" : "em";
  return { tag, label: text.slice(from, end), end: end + mark.length };
}

/** [label](address) and ![label](address): the second names an image that is not loaded. */
function bracket(text, at) {
  const image = text.startsWith("![", at);
  const open = at + (image ? 1 : 0);
  if (text[open] !== "[") return null;
  let close = open + 1;
  for (let level = 1; close < text.length && close - open < LONGEST_LABEL; close += 1) {
    if (text[close] === "[") level += 1;
    else if (text[close] === "]" && (level -= 1) === 0) break;
  }
  if (text[close] !== "]" || text[close + 1] !== "(") return null;
  const match = /^\(\s*<?([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+["'][^"']*["'])?\s*\)/.exec(
    text.slice(close + 1, close + 1 + LONGEST_LABEL),
  );
  const address = match && safeAddress(match[1]);
  if (!address) return null;
  const label = text.slice(open + 1, close) || match[1];
  return { label: image ? `image: ${label}` : label, address, end: close + 1 + match[0].length };
}

/** An address that stands in the text. */
function bare(text, at) {
  if (text[at] !== "h" || /\w/.test(text[at - 1] ?? "")) return null;
  const match = /^https?:\/\/[^\s<>"'`]+/.exec(text.slice(at, at + LONGEST_LABEL));
  if (!match) return null;
  const shown = match[0].replace(/[.,;:!?)\]*_~]+$/, "");
  const address = safeAddress(shown);
  return address && { label: shown, address, end: at + shown.length, raw: true };
}
