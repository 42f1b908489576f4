// What Sudoku and mazes have in common: a grid fills its canvas, and is a text over an alphabet. A grid is an array of
// characters, row by row; its tokens are their places in the alphabet, from 1.

import { notAllowed, rowsOf } from "./dom.js";

// task: what it has of its own, see tasks.js.
export const textTask = (task) => ({
  ...task, tokensOf, cellsOfTokens, textOf, gridOf, hint,
  exampleName: (example) => `${example.source}, ${task.rated}: ${example.rating}`,
  read: (text, kind) => read(text, kind, task),
  examplesOfFile: (text, kind) => examplesOfFile(text, kind, task),
});

const tokensOf = (grid, kind) => grid.map((cell) => kind.characters.indexOf(cell) + 1);

// "?" where the model answers padding.
const cellsOfTokens = (tokens, kind) => Array.from(tokens, (token) => kind.characters[token - 1] ?? "?");

const textOf = (grid, kind) => rowsOf(grid, kind).map((row) => row.join("")).join("\n");
const gridOf = (example) => [...example.puzzle];
const hint = (kind) => `${kind.grid_shape.join(" × ")} of the characters ${kind.characters.replace(" ", "space ")}`;

function read(text, kind, task) {
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

// One puzzle a line, or height lines of width; empty lines separate.
function examplesOfFile(text, kind, task) {
  const [height, width] = kind.grid_shape;
  const found = [];
  let rows = "";
  for (const line of [...text.split(/\r?\n/), ""]) {
    const cells = task.cellsOf(line).join("");
    if (!rows && cells && cells.length !== width) {
      found.push({ text: cells });
      continue;
    }
    rows += cells;
    if (rows && (rows.length >= height * width || !cells)) {
      found.push({ text: rows });
      rows = "";
    }
  }
  return found;
}
