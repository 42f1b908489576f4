// Mazes: "#" wall, " " open, "S" start, "G" goal, and in an answer "o" path. A grid is an array of characters.
// The same rule as verifiers_trm.maze_path_connects: whether the path is a shortest one is not asked.

import { counted } from "./dom.js";

export const title = "Maze";
export const rated = "moves";

const WALL = "#", OPEN = " ", START = "S", GOAL = "G", PATH = "o";
const NAMES = { [WALL]: "wall", [OPEN]: "open", [START]: "start", [GOAL]: "goal", [PATH]: "path" };

export const pad = () => [WALL, OPEN, START, GOAL].map((write) => ({ write, name: NAMES[write], show: NAMES[write] }));
export const draws = true; // the pad chooses what the mouse draws

export const emptyGrid = (kind) => Array(kind.grid_shape[0] * kind.grid_shape[1]).fill(OPEN);
export const cellsOf = (text) => [...text.replace(/[\r\n]/g, "")];
export const keyToCell = (key) => ({ Delete: OPEN, Backspace: OPEN, ".": OPEN })[key] ?? key.toUpperCase();
export const isFree = (cell) => cell === OPEN;
export const shown = (cell) => (cell === START || cell === GOAL ? cell : "");
export const spoken = (cell) => NAMES[cell] ?? cell;

// There is one start and one goal: a new one takes the place of the old.
export function written(grid, place, cell) {
  const single = cell === START || cell === GOAL;
  const next = grid.map((old) => (single && old === cell ? OPEN : old));
  next[place] = cell;
  return next;
}

export function problems(grid) {
  const found = [];
  for (const cell of [START, GOAL]) {
    const places = grid.flatMap((one, place) => (one === cell ? [place] : []));
    if (places.length === 0) found.push({ places: [], text: `The maze has no ${NAMES[cell]}: write or draw ${cell}` });
    if (places.length > 1) found.push({ places, text: `${places.length} cells are ${cell}; a maze has one` });
  }
  const path = grid.flatMap((one, place) => (one === PATH ? [place] : []));
  if (path.length) found.push({ places: path, text: "a puzzle has no path yet" });
  return found;
}

export function verdict(puzzle, answer, kind) {
  const [height, width] = kind.grid_shape;
  const altered = places(answer, (cell, place) => cell !== puzzle[place] && !(cell === PATH && puzzle[place] === OPEN));
  const line = new Set(places(answer, (cell, place) => cell === PATH || puzzle[place] === START || puzzle[place] === GOAL));
  const sides = (place) => neighbours(place, height, width).filter((other) => line.has(other));
  const degree = (place) => (answer[place] === PATH ? 2 : 1);
  const ends = [...line].filter((place) => sides(place).length !== degree(place));
  const start = puzzle.indexOf(START);
  const stray = [...line].filter((place) => !reached(start, sides).has(place));
  const broken = new Set([...altered, ...ends, ...stray]);
  if (!broken.size) {
    return { solved: true, places: broken, text: `Solved: the path of ${line.size - 1} moves joins start and goal.` };
  }
  const why = altered.length ? "a cell that is no path was altered" : "the path ends, branches or is in pieces";
  return { solved: false, places: broken, text: `Not solved: ${counted(broken.size, "cell")} against a rule (${why}).` };
}

const places = (grid, test) => grid.flatMap((cell, place) => (test(cell, place) ? [place] : []));

function neighbours(place, height, width) {
  const row = Math.floor(place / width), column = place % width;
  const found = [];
  if (row > 0) found.push(place - width);
  if (row < height - 1) found.push(place + width);
  if (column > 0) found.push(place - 1);
  if (column < width - 1) found.push(place + 1);
  return found;
}

function reached(start, sides) {
  const seen = new Set([start]);
  for (const place of seen) sides(place).forEach((other) => seen.add(other)); // a set grows while it is walked
  return seen;
}
