// Curves over the supervision steps: halt probability, entropy, cells changed; one line for each model.

import { drawn, element } from "./dom.js";

const WIDTH = 320, HEIGHT = 120, LEFT = 34, RIGHT = 10, TOP = 10, BOTTOM = 22;
export const CURVES = [
  { name: "Halt probability", of: (frame) => frame.haltProbability, top: 1, digits: 2, bound: (run) => run.halt },
  { name: "Entropy (nats a cell)", of: (frame) => frame.entropy, top: 0.5, digits: 3 },
  { name: "Cells changed", of: (frame) => frame.changed.length, top: 10, digits: 0 },
];

// runs: [{ name, halt, frames, haltStep }]; shown: the step that the boards show.
export function curves(runs, shown) {
  return CURVES.map((curve) => element("figure", {}, element("figcaption", {}, curve.name), chart(curve, runs, shown)));
}

function chart(curve, runs, shown) {
  const longest = Math.max(2, ...runs.map((run) => run.frames.length));
  const highest = Math.max(curve.top, ...runs.flatMap((run) => run.frames.map(curve.of).filter(Number.isFinite)));
  const x = (step) => LEFT + ((step - 1) / (longest - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / highest) * (HEIGHT - TOP - BOTTOM);
  const parts = [
    ...[0, highest].map((value) => drawn("text", { x: LEFT - 5, y: y(value) + 4, class: "tick end" }, shortNumber(value))),
    ...[1, longest].map((step) => drawn("text", { x: x(step), y: HEIGHT - 6, class: "tick middle" }, String(step))),
    drawn("path", { d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`, class: "axis" }),
  ];
  for (const bound of new Set(curve.bound ? runs.map(curve.bound) : [])) {
    if (bound !== null) parts.push(drawn("path", { d: `M${LEFT} ${y(bound)}H${WIDTH - RIGHT}`, class: "bound" }));
  }
  runs.forEach((run, number) => parts.push(...lineOf(run, number, curve, x, y, shown)));
  return drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(curve, runs) }, ...parts);
}

function lineOf(run, number, curve, x, y, shown) {
  const style = `line line-${number}`;
  const points = run.frames.flatMap((frame, i) => (Number.isFinite(curve.of(frame)) ? [[x(i + 1), y(curve.of(frame))]] : []));
  const parts = [drawn("polyline", { points: points.map((point) => point.join(",")).join(" "), class: style })];
  if (run.haltStep) {
    const at = x(run.haltStep);
    parts.push(drawn("path", { d: `M${at} ${TOP}V${HEIGHT - BOTTOM}`, class: `halts ${style}` }));
  }
  const here = points[Math.min(shown, points.length) - 1];
  if (here) parts.push(drawn("circle", { cx: here[0], cy: here[1], r: 4, class: `dot dot-${number}` }));
  return parts;
}

const shortNumber = (value) => (value >= 10 ? value.toFixed(0) : String(Number(value.toFixed(1))));

function described(curve, runs) {
  const said = runs.filter((run) => run.frames.length).map((run) => {
    const first = curve.of(run.frames[0]).toFixed(curve.digits), last = curve.of(run.frames.at(-1)).toFixed(curve.digits);
    return `${run.name}: ${first} after step 1, ${last} after step ${run.frames.length}`;
  });
  return `${curve.name}. ${said.join("; ") || "No step yet"}`;
}

// The same figures as a table.
export function table(runs) {
  const longest = Math.max(0, ...runs.map((run) => run.frames.length));
  const rows = Array.from({ length: longest }, (_, i) => element("tr", {}, element("th", { scope: "row" }, String(i + 1)),
    ...runs.flatMap((run) => CURVES.map((curve) => element("td", {}, run.frames[i] ? curve.of(run.frames[i]).toFixed(curve.digits) : "–")))));
  const names = element("tr", {}, element("th", { scope: "col", rowspan: 2 }, "Step"),
    ...runs.map((run) => element("th", { scope: "colgroup", colspan: CURVES.length }, run.name)));
  const heads = element("tr", {}, ...runs.flatMap(() => CURVES.map((curve) => element("th", { scope: "col" }, curve.name))));
  return element("table", {}, element("thead", {}, names, heads), element("tbody", {}, ...rows));
}
