// The pairs of an ARC task as pictures: what the demonstrations show, and what is asked. An input is a button that puts
// it on the board.

import { drawn, element } from "./dom.js";

// example: { train, test }, each of [input, output or null] as text; asked: the text of the input on the board.
export function pairs({ train, test }, asked, onAsk) {
  const lists = [["Demonstrations", train, false], ["Asked", test, true]];
  return lists.map(([name, list, hidden]) => element("section", { class: "pairs", "aria-label": name }, element("h3", {}, name),
    ...list.map((pair, i) => pairOf(pair, `${name}, ${i + 1}`, hidden, asked, onAsk))));
}

function pairOf([input, output], name, hidden, asked, onAsk) {
  const button = element("button", { type: "button", "aria-pressed": String(input === asked), "aria-label": `${name}: put the input on the board` }, picture(input, `${name}, input`));
  button.addEventListener("click", () => onAsk(input));
  const answer = hidden || output === null ? element("span", { class: "unknown" }, "?") : picture(output, `${name}, output`);
  return element("div", { class: "pair" }, button, element("span", { "aria-hidden": "true" }, "→"), answer);
}

function picture(text, name) {
  const rows = text.split("/");
  const cells = rows.flatMap((row, y) => [...row].map((colour, x) => drawn("rect", { x, y, width: 1, height: 1, "data-cell": colour })));
  const label = `${name}, ${rows.length} by ${rows[0].length}: ${rows.join(", ")}`;
  return drawn("svg", { viewBox: `0 0 ${rows[0].length} ${rows.length}`, role: "img", "aria-label": label, class: "grid" }, ...cells);
}
