// The tasks that the page knows. A grid is an array of characters; its tokens are their places in the alphabet, from 1.

import * as maze from "./maze.js";
import * as sudoku from "./sudoku.js";

export const TASKS = { sudoku, maze };

export const tokensOf = (grid, kind) => grid.map((cell) => kind.characters.indexOf(cell) + 1);

// "?" where the model answers padding.
export const cellsOfTokens = (tokens, kind) => Array.from(tokens, (token) => kind.characters[token - 1] ?? "?");

export function placeName(place, kind) {
  const width = kind.grid_shape[1];
  return `Row ${Math.floor(place / width) + 1}, column ${(place % width) + 1}`;
}

// The grid of a text, or what is wrong with it: { grid, problems }, where a problem has places as those of a task have.
export function readGrid(text, kind) {
  const task = TASKS[kind.task];
  const [height, width] = kind.grid_shape;
  const cells = task.cellsOf(text);
  const grid = task.emptyGrid(kind);
  const problems = [];
  if (cells.length !== grid.length) {
    problems.push({ places: [], text: `${cells.length} cells, expected ${grid.length} (${height} × ${width})` });
  }
  cells.slice(0, grid.length).forEach((cell, place) => {
    if (kind.characters.includes(cell)) grid[place] = cell;
    else problems.push({ places: [place], text: notAllowed(cell, kind) });
  });
  return { grid, problems };
}

export const notAllowed = (cell, kind) => `“${cell}” is not allowed here; allowed: ${kind.characters}`;

export function textOf(grid, kind) {
  const width = kind.grid_shape[1];
  return Array.from({ length: kind.grid_shape[0] }, (_, row) => grid.slice(row * width, (row + 1) * width).join("")).join("\n");
}

// The puzzles of a file: one a line, or height lines of width; empty lines separate.
export function puzzlesOfFile(text, kind) {
  const task = TASKS[kind.task];
  const [height, width] = kind.grid_shape;
  const found = [];
  let rows = "";
  for (const line of [...text.split(/\r?\n/), ""]) {
    const cells = task.cellsOf(line).join("");
    if (!rows && cells && cells.length !== width) {
      found.push(cells);
      continue;
    }
    rows += cells;
    if (rows && (rows.length >= height * width || !cells)) {
      found.push(rows);
      rows = "";
    }
  }
  return found;
}
