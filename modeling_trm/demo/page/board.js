// A grid of cells: shows a puzzle or an answer, is written in by keys, by the pad and by drawing.
//
// To a screen reader it is a grid of one tab stop, in which the arrows move (ARIA Authoring Practices, "grid").

import { element, percent, placeName } from "./dom.js";
import { TASKS } from "./tasks.js";

// How sure the model is, from 0 to 1; of these three colours the blind to red and green see the order too.
const SCALE = [[0xd5, 0x5e, 0x00], [0xf6, 0xe3, 0xb4], [0x56, 0xb4, 0xe9]];

export function colourOf(confidence) {
  const at = Math.min(1, Math.max(0, confidence)) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  const mixed = SCALE[low].map((from, i) => Math.round(from + (SCALE[low + 1][i] - from) * (at - low)));
  return `rgb(${mixed.join(" ")})`;
}

export class Board {
  #kind;
  #task;
  #cells;
  #grid;
  #bubble;
  #view = null;
  #focused = 0;
  #brush = null;

  // onWrite(place, cell), and onMistake(place, key) for what is not allowed; without them the board is to be read only.
  constructor(kind, name, { onWrite = null, onMistake = null, brush = null } = {}) {
    const [height, width] = kind.grid_shape;
    this.#kind = kind;
    this.#task = TASKS[kind.task];
    this.#cells = Array.from({ length: height * width }, (_, place) => element("div", {
      role: "gridcell", tabindex: place ? -1 : 0, "data-place": place, "aria-colindex": (place % width) + 1,
      class: this.#edges(place),
    }));
    const rows = Array.from({ length: height }, (_, row) => element(
      "div", { role: "row", "aria-rowindex": row + 1 }, ...this.#cells.slice(row * width, (row + 1) * width)));
    this.#grid = element("div", {
      role: "grid", class: `board ${kind.task}`, "aria-label": `${name}, ${height} by ${width} cells`,
      "aria-readonly": onWrite ? null : "true", "aria-rowcount": height, "aria-colcount": width,
    }, ...rows);
    this.#grid.style.setProperty("--width", width);
    this.#bubble = element("p", { class: "bubble", hidden: true });
    this.caption = element("figcaption");
    this.verdict = element("p", { class: "verdict" });
    this.node = element("figure", {}, this.caption, element("div", { class: "frame" }, this.#grid, this.#bubble), this.verdict);
    this.#grid.addEventListener("keydown", (event) => this.#onKey(event, onWrite, onMistake));
    this.#grid.addEventListener("focusin", (event) => this.#onFocus(Number(event.target.dataset.place)));
    if (onWrite && brush) this.#letDraw(onWrite, brush);
  }

  get focusedPlace() {
    return this.#focused;
  }

  focus(place = this.#focused) {
    this.#cells[place].focus();
  }

  // view: { cells, given: place -> bool, confidence (of each cell), changed and broken (sets of places), problems }
  show(view) {
    const before = this.#view;
    this.#view = view;
    this.#cells.forEach((_, place) => this.#paint(place, before));
    this.#showProblem();
  }

  #paint(place, before) {
    const { cells, given, confidence, changed, broken } = this.#view;
    const node = this.#cells[place], cell = cells[place];
    const fixed = given[place], answered = !fixed && !this.#task.isFree(cell);
    const wrong = this.#problemsAt(place).length > 0;
    if (before?.cells[place] !== cell) node.textContent = this.#task.shown(cell);
    node.dataset.cell = cell;
    node.classList.toggle("given", fixed);
    node.classList.toggle("answered", answered);
    node.classList.toggle("changed", changed.has(place));
    node.classList.toggle("broken", broken.has(place));
    const sureness = answered && confidence ? confidence[place] : null;
    node.style.backgroundColor = sureness === null || this.#task.hasTasks ? "" : colourOf(sureness);
    node.style.setProperty("--sure", sureness ?? 1); // where the colours are the answer's, it is the size that tells
    node.toggleAttribute("aria-invalid", false);
    if (wrong) node.setAttribute("aria-invalid", "true");
    const sure = sureness === null ? "" : `, ${percent(sureness)} sure`;
    const more = `${changed.has(place) ? ", changed" : ""}${broken.has(place) ? ", breaks a rule" : ""}`;
    const problem = this.#problemsAt(place).map((one) => `, ${one.text}`).join("");
    const role = fixed ? "given " : "";
    node.setAttribute("aria-label", `${placeName(place, this.#kind)}: ${role}${this.#task.spoken(cell)}${sure}${more}${problem}`);
  }

  // The thick lines of a Sudoku's boxes.
  #edges(place) {
    if (this.#kind.task !== "sudoku") return "";
    const size = this.#kind.grid_shape[0], box = Math.round(Math.sqrt(size));
    const row = Math.floor(place / size), column = place % size;
    return `${row % box === 0 ? "top " : ""}${column % box === 0 ? "left " : ""}`;
  }

  #problemsAt(place) {
    return this.#view.problems.filter((problem) => problem.places.includes(place));
  }

  // What is wrong is said beside the cell where one is, or beside the first of the wrong ones.
  #showProblem() {
    const first = this.#view.problems.find((problem) => problem.places.length);
    const place = this.#problemsAt(this.#focused).length ? this.#focused : first?.places.at(-1);
    this.#bubble.hidden = place === undefined;
    if (place === undefined) return;
    this.#bubble.textContent = this.#problemsAt(place).map((one) => one.text).join("; ");
    const cell = this.#cells[place], room = this.#grid.clientWidth - this.#bubble.offsetWidth;
    this.#bubble.style.top = `${cell.offsetTop + cell.offsetHeight + 4}px`;
    this.#bubble.style.left = `${Math.max(0, Math.min(cell.offsetLeft, room))}px`;
  }

  #onFocus(place) {
    this.#cells[this.#focused].tabIndex = -1;
    this.#focused = place;
    this.#cells[place].tabIndex = 0;
    if (this.#view) this.#showProblem();
  }

  #onKey(event, onWrite, onMistake) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [height, width] = this.#kind.grid_shape;
    const place = this.#focused, column = place % width;
    const target = {
      ArrowLeft: column > 0 ? place - 1 : place,
      ArrowRight: column < width - 1 ? place + 1 : place,
      ArrowUp: place >= width ? place - width : place,
      ArrowDown: place < (height - 1) * width ? place + width : place,
      Home: place - column,
      End: place - column + width - 1,
    }[event.key];
    if (target !== undefined) {
      this.focus(target);
    } else if (onWrite && (event.key.length === 1 || event.key === "Delete" || event.key === "Backspace")) {
      const cell = this.#task.keyToCell(event.key);
      if (this.#kind.characters.includes(cell)) onWrite(place, cell);
      else onMistake(place, event.key);
    } else {
      return;
    }
    event.preventDefault();
  }

  // The mouse or a finger writes what the pad has chosen; begun on a cell that has it already, it clears.
  #letDraw(onWrite, brush) {
    const placeAt = (event) => {
      const under = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-place]");
      return under && this.#grid.contains(under) ? Number(under.dataset.place) : null;
    };
    let last = null;
    // A quick mouse leaves cells out; what lies between is drawn too.
    const draw = (event) => {
      const place = placeAt(event);
      if (place === null) return;
      for (const each of between(last ?? place, place, this.#kind.grid_shape[1])) {
        if (this.#view.puzzle[each] !== this.#brush) onWrite(each, this.#brush);
      }
      last = place;
    };
    this.#grid.addEventListener("pointerdown", (event) => {
      const place = placeAt(event);
      if (place === null) return;
      last = null;
      this.#brush = this.#view.puzzle[place] === brush() ? this.#task.emptyGrid(this.#kind)[0] : brush();
      draw(event);
    });
    this.#grid.addEventListener("pointermove", (event) => { if (event.buttons && this.#brush) draw(event); });
    addEventListener("pointerup", () => { this.#brush = null; });
  }
}

// The places on the straight line from one to another, both included.
function between(from, to, width) {
  const [row, column] = [Math.floor(from / width), from % width];
  const [down, right] = [Math.floor(to / width) - row, (to % width) - column];
  const count = Math.max(1, Math.abs(down), Math.abs(right));
  return Array.from({ length: count + 1 }, (_, i) => (row + Math.round((down * i) / count)) * width + column + Math.round((right * i) / count));
}
