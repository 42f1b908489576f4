// Sudoku of any size n = b * b: its text, its rules. A grid is an array of characters, row by row.
// The same rules as verifiers_trm.sudoku_is_solved and find_repeated_digit of scripts/solve_onnx.py.

import { counted } from "./dom.js";

export const title = "Sudoku";
export const rated = "guesses";

const BLANK = ".";

export const pad = (kind) => [...kind.characters.slice(1)].map((digit) => ({ write: digit, name: digit }))
  .concat({ write: BLANK, name: "empty", show: "⌫" });

export const emptyGrid = (kind) => Array(kind.grid_shape[0] * kind.grid_shape[1]).fill(BLANK);

// Cells of a text, as people write a Sudoku: spaces, the lines of boxes, 0 for a blank.
export const cellsOf = (text) => [...text.replace(/[\s|+-]/g, "").replaceAll("0", BLANK)];

export const keyToCell = (key) => ({ Delete: BLANK, Backspace: BLANK, " ": BLANK, 0: BLANK })[key] ?? key.toUpperCase();

export const isFree = (cell) => cell === BLANK;
export const shown = (cell) => (cell === BLANK ? "" : cell);
export const spoken = (cell) => (cell === BLANK ? "empty" : cell);

// A Sudoku takes any character at any place.
export const written = (grid, place, cell) => Object.assign([...grid], { [place]: cell });

// What makes the grid no puzzle: [{ places, text }]; the text is shown beside each of the places.
export function problems(grid, kind) {
  const found = [];
  for (const { name, places } of units(kind.grid_shape[0])) {
    const where = new Map();
    for (const place of places) {
      if (grid[place] !== BLANK) where.set(grid[place], [...(where.get(grid[place]) ?? []), place]);
    }
    for (const [digit, twice] of where) {
      if (twice.length > 1) found.push({ places: twice, text: `${digit} stands ${times(twice.length)} in ${name}` });
    }
  }
  return found;
}

// Whether the answer solves the puzzle, in words, and the places that break a rule.
export function verdict(puzzle, answer, kind) {
  const broken = problems(answer, kind);
  const digits = kind.characters.slice(1);
  const none = answer.flatMap((cell, place) => (digits.includes(cell) ? [] : [place]));
  const places = new Set([...broken.flatMap((one) => one.places), ...none]);
  if (!places.size) return { solved: true, places, text: "Solved: every row, column and box has each digit once." };
  const first = broken.length ? broken[0].text : "a cell has no digit";
  return { solved: false, places, text: `Not solved: ${counted(places.size, "cell")} against a rule (${first}).` };
}

const times = (count) => (count === 2 ? "twice" : `${count} times`);

// Rows, columns and boxes with the places of their cells.
export function units(size) {
  const box = Math.round(Math.sqrt(size));
  const span = [...Array(size).keys()];
  return span.flatMap((unit) => {
    const top = Math.floor(unit / box) * box;
    const left = (unit % box) * box;
    return [
      { name: `row ${unit + 1}`, places: span.map((i) => unit * size + i) },
      { name: `column ${unit + 1}`, places: span.map((i) => i * size + unit) },
      { name: `box ${unit + 1}`, places: span.map((i) => (top + Math.floor(i / box)) * size + left + (i % box)) },
    ];
  });
}
