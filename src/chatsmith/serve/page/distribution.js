// Probabilities from logits, at any temperature, without asking the server again.

/** Little-endian float32 in base64 → Float32Array. */
export function decodeLogits(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 2 }, (_, place) => view.getFloat32(4 * place, true));
}

/** One place's logits, sorted once; every question after that is arithmetic on them. */
export class Distribution {
  constructor(logits) {
    this.sorted = logits.filter(Number.isFinite).sort().reverse(); // descending: rank 1 first
    this.top = this.sorted[0];
  }

  /** ln Σ exp((z − z₁) / T): what turns a logit into a log probability. At 0 all of it is on the first. */
  #total(temperature) {
    let sum = 0;
    for (const logit of this.sorted) {
      const weight = Math.exp((logit - this.top) / temperature);
      if (weight < 1e-12) break;
      sum += weight;
    }
    return Math.log(sum);
  }

  /** A function from a logit to its probability at a temperature. */
  at(temperature) {
    if (temperature <= 0) return (logit) => (logit >= this.top ? 1 : 0);
    const total = this.#total(temperature);
    return (logit) => Math.exp((logit - this.top) / temperature - total);
  }

  /** The smallest number of tokens, best first, whose probabilities reach `share`. */
  nucleus(temperature, share) {
    const probability = this.at(temperature);
    let sum = 0;
    for (let rank = 0; rank < this.sorted.length; rank += 1) {
      sum += probability(this.sorted[rank]);
      if (sum >= share) return rank + 1;
    }
    return this.sorted.length;
  }

  /** How open the choice is, in bits. */
  entropy(temperature) {
    const probability = this.at(temperature);
    let bits = 0;
    for (const logit of this.sorted) {
      const p = probability(logit);
      if (p < 1e-12) break;
      bits -= p * Math.log2(p);
    }
    return Math.abs(bits);
  }

  /** Points [rank, probability], evenly spread over the logarithm of the rank, down to a floor. */
  curve(temperature, floor = 1e-9) {
    const probability = this.at(temperature);
    const points = [];
    let last = 0;
    for (let step = 0; last < this.sorted.length; step += 1) {
      const rank = Math.min(this.sorted.length, Math.max(last + 1, Math.round(10 ** (step / 12))));
      const p = probability(this.sorted[rank - 1]);
      if (p < floor) break;
      points.push([rank, p]);
      last = rank;
    }
    return points;
  }
}

/** The least-squares line through points in log-log: {slope, at1}, p ≈ at1 · rank^slope; null for fewer than three. */
export function slopeOf(points) {
  if (points.length < 3) return null;
  const xs = points.map(([rank]) => Math.log10(rank));
  const ys = points.map(([, p]) => Math.log10(p));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [mx, my] = [mean(xs), mean(ys)];
  const across = xs.reduce((sum, x) => sum + (x - mx) ** 2, 0);
  const slope = xs.reduce((sum, x, place) => sum + (x - mx) * (ys[place] - my), 0) / across;
  return { slope, at1: 10 ** (my - slope * mx) };
}

export const bitsOf = (p) => (p > 0 ? Math.max(0, -Math.log2(p)) : Infinity);

/** A probability for people: 97%, 4.2%, 0.03%, <0.01%. */
export function percent(p) {
  const value = 100 * p;
  if (value === 0) return "0%";
  if (value < 0.01) return "<0.01%";
  if (value < 1) return `${value.toFixed(2)}%`;
  if (value < 10) return `${value.toFixed(1)}%`;
  return `${value >= 99.95 && p < 1 ? ">99.9" : value.toFixed(value > 99 ? 1 : 0)}%`;
}

export const bitsText = (bits) => (Number.isFinite(bits) ? `${bits.toFixed(bits < 10 ? 1 : 0)} bits` : "never");

/** How surprising, in seven steps, for colour: 0 foreseen, 6 very. */
export function surprise(logprob) {
  const bits = -logprob / Math.LN2;
  const step = [0.5, 1, 2, 3.5, 5.5, 8].findIndex((edge) => bits < edge);
  return step < 0 ? 6 : step;
}

/** A token's text; bytes that are no text by themselves (the server spells them out) as ⟨e2⟩. */
export const textOf = (text) =>
  text.startsWith("bytes:\\x") ? `⟨${text.slice(8).replaceAll("\\x", " ")}⟩` : text;

/** A token's text with its white space made visible. */
export const visible = (text) =>
  text === "" ? "∅" : textOf(text).replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");
