// The server, as functions. An error is an ApiError that says what happened and what may help.

import { ask, h } from "./dom.js";

const KEY = "chatsmith-key";

export class ApiError extends Error {
  /** `status` 0: no answer came. `wait`: seconds until asking again may help, where the server said so. */
  constructor(message, status, wait = 0, code = null) {
    super(message);
    Object.assign(this, { status, wait, code });
  }
}

let asking = null;

/** Ask for a key, once, however many requests wait for it. It is kept until the tab is closed. */
function askForKey(wrong) {
  const field = h("input", { type: "password", autocomplete: "off", required: true, id: "key", spellcheck: "false" });
  const why = wrong ? "The server does not know this key." : "This server answers only those who have a key.";
  asking ??= ask({
    title: "A key is needed",
    body: h(
      "div",
      { class: "stack" },
      h("p", {}, `${why} Make one on its machine with `, h("code", {}, "chatsmith keys new"), "."),
      h("label", { for: "key" }, "Key"),
      field,
    ),
    confirm: "Continue",
    read: () => field.value.trim(),
  }).finally(() => (asking = null));
  return asking;
}

async function send(path, { method = "GET", body, signal, keepalive } = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, keepalive });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is chatsmith serve still running?", 0);
  }
  if (response.ok) return response;
  if (response.status === 401) {
    const given = await askForKey(Boolean(key));
    if (given) {
      sessionStorage.setItem(KEY, given);
      return send(path, { method, body, signal, keepalive });
    }
  }
  const { message, code } = await reason(response);
  throw new ApiError(message, response.status, Number(response.headers.get("Retry-After")) || 0, code);
}

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { message: `The server answered ${response.status}.` };
  }
}

const json = async (path, options) => {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
};

const post = (path, body, signal) => json(path, { method: "POST", body, signal });

/** The events of a stream, read as they come: whole `data:` lines, whatever the pieces they arrive in. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* stream(path, body, signal) {
  const response = await send(path, {
    method: "POST",
    body: { ...body, stream: true, stream_options: { include_usage: true } },
    signal,
  });
  try {
    for await (const event of events(response.body)) {
      if (event.error) throw new ApiError(event.error.message, 500, 0, event.error.code);
      yield event;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection broke before the end of the reply.", 0);
  }
}

export const api = {
  models: () => json("/v1/models"),
  limits: () => json("/v1/limits"),
  next: (body, signal) => post("/v1/next", body, signal),
  tokenize: (body, signal) => post("/v1/tokenize", body, signal),
  detokenize: (ids) => post("/v1/detokenize", { ids }),
  complete: (body, signal) => post("/v1/completions", body, signal),
  streamChat: (body, signal) => stream("/v1/chat/completions", body, signal),
  streamText: (body, signal) => stream("/v1/completions", body, signal),
  conversations: (search = "") => json(`/conversations?search=${encodeURIComponent(search)}`),
  conversation: (id) => json(`/conversations/${encodeURIComponent(id)}`),
  create: (body) => post("/conversations", body),
  change: (id, body) => json(`/conversations/${encodeURIComponent(id)}`, { method: "PATCH", body }),
  remove: (id) => json(`/conversations/${encodeURIComponent(id)}`, { method: "DELETE" }),
  add: (id, body) => post(`/conversations/${encodeURIComponent(id)}/messages`, body),
  addLast: (id, body) =>
    send(`/conversations/${encodeURIComponent(id)}/messages`, { method: "POST", body, keepalive: true }),
  exported: (id) => json(`/conversations/${encodeURIComponent(id)}/export`),
  imported: (body) => post("/conversations/import", body),
};
