// ARC: a grid of ten colours, of any size up to the canvas. A cell is "0" to "9", or OUTSIDE the grid.
// Tokens and the way back from them are those of processing_trm: place_colours, crop_colours.

import { counted, notAllowed, rowsOf } from "./dom.js";

export const title = "ARC";
export const draws = true;
export const hasTasks = true;

const OUTSIDE = "", BLACK = "0";
const END = 1, FIRST_COLOUR = 2; // tokens; 0 is padding
const NAMES = ["black", "blue", "red", "green", "yellow", "grey", "magenta", "orange", "azure", "maroon"];

export const pad = () => NAMES.map((name, colour) => ({ write: String(colour), name: `${colour}, ${name}`, show: String(colour) }));
export const hint = (kind) => `rows of the colours ${kind.characters}, at most ${kind.grid_shape.join(" × ")}`;
export const emptyGrid = (kind) => canvasOf(Array(3).fill(BLACK.repeat(3)), kind);
export const keyToCell = (key) => ({ Delete: BLACK, Backspace: BLACK })[key] ?? key;
export const isFree = (cell) => cell === OUTSIDE;
export const shown = (cell) => cell;
export const spoken = (cell) => (cell === OUTSIDE ? "outside the grid" : NAMES[cell]);
export const exampleName = (example) => `task ${example.name}`;
export const gridOf = (example, kind) => canvasOf(linesOf(example.test[0][0]), kind);

const linesOf = (text) => text.split("/");
const insideOf = (rows) => rows.map((row) => row.filter((cell) => cell !== OUTSIDE)).filter((row) => row.length);

// The text of a grid's rows, "012/340", as in demo.json.
const joined = (rows) => rows.map((row) => row.join("")).join("/");
export const textOf = (grid, kind) => joined(insideOf(rowsOf(grid, kind))).replaceAll("/", "\n");

function canvasOf(lines, kind) {
  const [height, width] = kind.grid_shape;
  return Array.from({ length: height * width }, (_, place) => lines[Math.floor(place / width)]?.[place % width] ?? OUTSIDE);
}

// Beyond its edges the grid grows by black cells.
export function written(grid, place, cell, kind) {
  const width = kind.grid_shape[1], inside = insideOf(rowsOf(grid, kind));
  const bottom = Math.max(inside.length, Math.floor(place / width) + 1), right = Math.max(inside[0].length, (place % width) + 1);
  return grid.map((old, at) => {
    if (at === place) return cell;
    return Math.floor(at / width) < bottom && at % width < right ? old || BLACK : OUTSIDE;
  });
}

export function tokensOf(grid, kind) {
  const width = kind.grid_shape[1];
  const isEnd = (place) => (grid[place - width] ?? OUTSIDE) !== OUTSIDE || (place % width > 0 && grid[place - 1] !== OUTSIDE);
  return grid.map((cell, place) => (cell !== OUTSIDE ? Number(cell) + FIRST_COLOUR : isEnd(place) ? END : 0));
}

export const cellsOfTokens = (tokens) => Array.from(tokens, (token) => (token < FIRST_COLOUR ? OUTSIDE : String(token - FIRST_COLOUR)));

// The rows of the largest rectangle of colours that begins at the top left; the first one wins a tie.
export function crop(cells, kind) {
  const rows = rowsOf(cells, kind);
  let width = kind.grid_shape[1], best = { size: 0, rows: [] };
  rows.forEach((row, number) => {
    const end = row.indexOf(OUTSIDE);
    width = Math.min(width, end < 0 ? row.length : end);
    const size = width * (number + 1);
    if (size > best.size) best = { size, rows: rows.slice(0, number + 1).map((one) => one.slice(0, width)) };
  });
  return best.rows;
}

export const problems = () => [];

// Only a pair of the task tells what is right: there are no rules to check an answer by.
export function verdict(puzzle, answer, kind, example) {
  const found = crop(answer, kind), size = found.length ? `${found.length} × ${found[0].length}` : "no grid";
  const input = joined(insideOf(rowsOf(puzzle, kind)));
  const expected = [...(example?.train ?? []), ...(example?.test ?? [])].find((pair) => pair[0] === input)?.[1];
  if (!expected) return { solved: false, places: new Set(), text: `The answer is ${size}; what is right is not known here.` };
  if (joined(found) === expected) return { solved: true, places: new Set(), text: `Solved: the answer is the task's own, ${size}.` };
  const right = canvasOf(linesOf(expected), kind);
  const places = new Set(answer.flatMap((cell, place) => (cell === right[place] ? [] : [place])));
  return { solved: false, places, text: `Not solved: ${counted(places.size, "cell")} differ from the task's own answer.` };
}

// Rows of digits, one a line or between slashes, or JSON [[0, 1], [2, 3]].
export function read(text, kind) {
  const [height, width] = kind.grid_shape;
  const lines = text.replace(/\][\s,]*\[/g, "/").replace(/[[\],\t ]/g, "").split(/[\n\r/]+/).filter(Boolean);
  const grid = canvasOf(lines.length ? lines : [BLACK], kind), longest = Math.max(0, ...lines.map((line) => line.length));
  const found = [];
  if (!lines.length) found.push({ places: [], text: "no colour; a grid is rows of digits" });
  if (lines.length > height || longest > width) {
    found.push({ places: [], text: `${lines.length} × ${longest} cells, at most ${height} × ${width}` });
  } else if (lines.some((line) => line.length !== longest)) {
    found.push({ places: [], text: "the rows differ in length" });
  }
  grid.forEach((cell, place) => {
    if (cell !== OUTSIDE && !kind.characters.includes(cell)) {
      found.push({ places: [place], text: notAllowed(cell, kind) });
      grid[place] = BLACK;
    }
  });
  return { grid, problems: found };
}

// A task in the official form, { "train": [{ "input", "output" }], "test": [...] }, or grids with empty lines between.
export function examplesOfFile(text, kind, name) {
  if (!text.trim().startsWith("{")) return text.split(/\r?\n\s*\r?\n/).filter((part) => part.trim()).map((part) => ({ text: part }));
  let task;
  try {
    task = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is no JSON: ${error.message}`);
  }
  const textsOf = (part) => task[part].map(({ input, output }) => [joined(input), output ? joined(output) : null]);
  if (![task.train, task.test].every((pairs) => Array.isArray(pairs) && pairs.length > 0 && pairs.every((pair) => isGrid(pair?.input)))) {
    throw new Error(`${name} is no ARC task: { "train": [{ "input": rows, "output": rows }], "test": [...] }`);
  }
  const test = textsOf("test");
  return [{ name: name.replace(/\.json$/, ""), train: textsOf("train"), test, text: test[0][0] }];
}

const isGrid = (rows) => Array.isArray(rows) && rows.length > 0 && rows.every((row) => Array.isArray(row) && row.length > 0);
