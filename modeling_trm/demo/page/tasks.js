// The tasks that the page knows, each with
//
//   title, rated (what a puzzle's rating counts), draws (whether the pad chooses what the mouse draws), hint(kind) of a text
//   pad(kind), emptyGrid(kind), written(grid, place, cell, kind), keyToCell(key), isFree(cell), shown(cell), spoken(cell)
//   tokensOf(grid, kind), cellsOfTokens(tokens, kind), textOf(grid, kind)
//   read(text, kind) -> { grid, problems }, examplesOfFile(text, kind, name), gridOf(example, kind), exampleName(example)
//   problems(grid, kind) -> [{ places, text }], verdict(puzzle, answer, kind, example) -> { solved, places, text }
//   hasTasks: an example is a task with pairs, whose name is a row of the model's puzzle table
//
// A grid is an array of cells, row by row; a problem's text is shown beside each of its places.

import * as arc from "./arc.js";
import * as maze from "./maze.js";
import * as sudoku from "./sudoku.js";
import { textTask } from "./text.js";

export const TASKS = { sudoku: textTask(sudoku), maze: textTask(maze), arc };
