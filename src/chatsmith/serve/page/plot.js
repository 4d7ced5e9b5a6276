// Rank against probability, both logarithmic: a straight line there is a power law, and its slope is the exponent.

import { svg } from "./dom.js";
import { slopeOf } from "./distribution.js";

const WIDTH = 340;
const HEIGHT = 210;
const LEFT = 40;
const RIGHT = 10;
const TOP = 10;
const FOOT = 30;
const FLOOR = -7; // log10 of the smallest probability drawn
const FITTED = 1000; // ranks the line is fitted to

const raised = (power) => String(power).replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);

/** A drawing that is redrawn with `update(distribution, temperature, rank)`; `element` is its node. */
export function rankPlot() {
  const grid = svg("g", { class: "grid" });
  const fit = svg("line", { class: "fit" });
  const line = svg("polyline", { class: "curve" });
  const dots = svg("g", { class: "dots" });
  const mark = svg("circle", { class: "mark", r: 5 });
  const caption = svg("text", { class: "slope", x: WIDTH - RIGHT - 4, y: TOP + 14, "text-anchor": "end" });
  const element = svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" },
    grid, fit, line, dots, mark, caption,
  );
  let drawn = 0;

  function update(distribution, temperature, rank) {
    const decades = Math.max(1, Math.log10(distribution.sorted.length));
    const x = (r) => LEFT + (Math.log10(r) / decades) * (WIDTH - LEFT - RIGHT);
    const y = (p) => TOP + (Math.log10(p) / FLOOR) * (HEIGHT - TOP - FOOT);
    if (drawn !== decades) {
      grid.replaceChildren(...axes(decades, x, y));
      drawn = decades;
    }
    const points = distribution.curve(temperature, 10 ** FLOOR);
    const at = ([r, p]) => `${x(r).toFixed(1)},${y(p).toFixed(1)}`;
    line.setAttribute("points", points.map(at).join(" "));
    dots.replaceChildren(
      ...points.slice(0, 24).map(([r, p]) => svg("circle", { cx: x(r).toFixed(1), cy: y(p).toFixed(1), r: 1.8 })),
    );
    const p = rank ? distribution.at(temperature)(distribution.sorted[rank - 1]) : 0;
    mark.style.display = p > 10 ** FLOOR ? "" : "none";
    if (p > 10 ** FLOOR) {
      mark.setAttribute("cx", x(rank));
      mark.setAttribute("cy", y(p));
    }
    const fitted = points.filter(([r]) => r <= FITTED);
    const found = slopeOf(fitted);
    fit.style.display = found ? "" : "none";
    caption.textContent = found ? `slope ${found.slope.toFixed(2).replace("-", "−")}` : "one token has it all";
    if (found) drawFit(fit, found, fitted.at(-1)[0], x, y);
    element.setAttribute(
      "aria-label",
      `Rank against probability, logarithmic: ${caption.textContent}` +
        (found ? ` over the first ${fitted.at(-1)[0]} ranks` : ""),
    );
  }
  return { element, update };
}

/** The fitted line, clipped to where probabilities are drawn. */
function drawFit(fit, { slope, at1 }, last, x, y) {
  const clip = (p) => Math.min(1, Math.max(10 ** FLOOR, p));
  const rankAt = (p) => (p / at1) ** (1 / slope);
  const ends = [1, last].map((rank) => {
    const p = at1 * rank ** slope;
    return clip(p) === p ? [rank, p] : [Math.min(last, Math.max(1, rankAt(clip(p)))), clip(p)];
  });
  for (const [place, [rank, p]] of ends.entries()) {
    fit.setAttribute(`x${place + 1}`, x(rank).toFixed(1));
    fit.setAttribute(`y${place + 1}`, y(p).toFixed(1));
  }
}

function axes(decades, x, y) {
  const parts = [];
  for (let power = 0; power <= decades; power += 1) {
    const at = x(10 ** power).toFixed(1);
    parts.push(svg("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - FOOT }));
    parts.push(
      svg("text", { x: at, y: HEIGHT - FOOT + 13, "text-anchor": "middle" }, (10 ** power).toLocaleString("en")),
    );
  }
  for (let power = 0; power >= FLOOR; power -= 1) {
    const at = y(10 ** power).toFixed(1);
    parts.push(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    if (power % 2 === 0 || power === FLOOR + 1)
      parts.push(svg("text", { x: LEFT - 6, y: Number(at) + 3, "text-anchor": "end" }, power ? `10${raised(power)}` : "1"));
  }
  const middle = (LEFT + WIDTH - RIGHT) / 2;
  parts.push(svg("text", { x: middle, y: HEIGHT - 4, "text-anchor": "middle", class: "axis" }, "rank"));
  return parts;
}
