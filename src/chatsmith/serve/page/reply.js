// A reply while it is written: asked for, read as it comes, and said aloud sentence by sentence.

import { api } from "./api.js";
import { asked } from "./settings.js";
import { fromLogprobs } from "./tokens.js";

const ALTERNATIVES = 8; // kept with each token
const LARGEST = 600_000; // characters of tokens as JSON that are kept whole

/**
 * Ask for a reply to messages and add what comes to `reply` ({content, tokens, settings}), calling `grown` each time.
 * `reply.tokens` may hold the first tokens already: the model goes on from them. Ends when the reply does; aborting
 * `signal` ends it early, and what came is kept.
 */
export async function write({ messages, model, context, settings, reply, signal, grown }) {
  const prefix = reply.tokens.map(([id]) => id);
  const fitting = await fit(messages, context, signal);
  reply.settings = { ...reply.settings, left_out: messages.length - fitting.length };
  const request = { model, messages: fitting, ...asked(settings), logprobs: true, top_logprobs: ALTERNATIVES };
  if (prefix.length) request.prefix_ids = prefix;
  const made = { ...asked(settings), ended: "stopped" };
  let first = 0;
  let count = 0;
  reply.settings = { ...reply.settings, ...made };
  try {
    for await (const event of api.streamChat(request, signal)) {
      if (Number.isFinite(event.seed)) reply.settings.seed = event.seed;
      if (event.system_fingerprint) reply.settings.fingerprint = event.system_fingerprint;
      const [choice] = event.choices ?? [];
      if (!choice) continue;
      const entries = choice.logprobs?.content ?? [];
      if (entries.length) first ||= performance.now();
      count += entries.length;
      reply.tokens.push(...entries.map(fromLogprobs));
      reply.content += choice.delta?.content ?? "";
      if (choice.finish_reason) reply.settings.ended = choice.finish_reason;
      grown();
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
  const seconds = (performance.now() - first) / 1000;
  if (first && count > 1 && seconds > 0) reply.settings.tokens_per_second = Math.round((10 * (count - 1)) / seconds) / 10;
}

/** The messages without the oldest turns, where a long talk would leave less than a quarter of the context to reply. */
async function fit(messages, context, signal) {
  const begin = messages[0]?.role === "system" ? 1 : 0;
  const most = (await mostMessages()) - begin;
  const turns = messages.flatMap(({ role }, at) => (role === "user" ? [at - begin] : [])); // where a talk may begin
  if (!turns.length) return messages;
  let low = turns.findIndex((left) => messages.length - begin - left <= most);
  let high = turns.length - 1;
  const length = messages.slice(begin + turns[low]).reduce((sum, { content }) => sum + content.length, 0);
  if (!context || length < context / 2) high = low;
  // Most talks fit whole: that is asked first, then the range is halved.
  for (let at = low; low < high; at = (low + high) >> 1) {
    if (await fits(withoutOldest(messages, turns[at]), context, signal)) high = at;
    else low = at + 1;
  }
  return withoutOldest(messages, turns[low]);
}

/** Whether a quarter of the context is left. */
async function fits(messages, context, signal) {
  return (await api.tokenize({ messages }, signal)).count <= 0.75 * context;
}

let limits = null;

/** How many messages the server takes. */
async function mostMessages() {
  try {
    limits ??= await api.limits();
  } catch {
    return 128;
  }
  return limits.messages;
}

/** Messages without the oldest ones, a system prompt excepted. */
export function withoutOldest(messages, count) {
  const begin = messages[0]?.role === "system" ? 1 : 0;
  return [...messages.slice(0, begin), ...messages.slice(begin + (count || 0))];
}

/** The tokens of a reply as they are stored: a very long reply keeps fewer alternatives. */
export function storable(tokens) {
  for (let kept = ALTERNATIVES; kept > 0; kept = Math.floor(kept / 2)) {
    const slim = tokens.map(([id, text, logprob, others]) => [
      id,
      text,
      rounded(logprob),
      others.slice(0, kept).map(([other, token, value]) => [other, token, rounded(value)]),
    ]);
    if (JSON.stringify(slim).length <= LARGEST) return slim;
  }
  return tokens.map(([id, text, logprob]) => [id, text, rounded(logprob), []]).slice(0, 20_000);
}

const rounded = (value) => Math.round(value * 1e5) / 1e5;

/** Says what has been written in whole sentences, through a live region. */
export class Speaker {
  #said = 0;

  constructor(region) {
    this.region = region;
    region.replaceChildren();
  }

  say(text) {
    const line = document.createElement("p");
    line.textContent = text;
    this.region.append(line);
  }

  /** `content` as far as it has come; with `done`, the rest of it too. */
  follow(content, done = false) {
    const fresh = content.slice(this.#said);
    const end = done ? fresh.length : fresh.search(/[.!?…]["”’)]*\s[^]*$|\n[^]*$/) + 1;
    if (end <= 0) return;
    this.#said += end;
    if (fresh.slice(0, end).trim()) this.say(fresh.slice(0, end).trim());
  }
}
