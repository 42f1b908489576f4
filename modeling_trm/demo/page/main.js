// The page: one puzzle, one or two models, and the step that is shown.

import { about } from "./about.js";
import { Board } from "./board.js";
import { curves, table } from "./curves.js";
import { byId, counted, element, notAllowed, percent, placeName, setOptions } from "./dom.js";
import { Models } from "./models.js";
import { pairs } from "./pairs.js";
import { Run } from "./solver.js";
import { TASKS } from "./tasks.js";

const MILLISECONDS = 350; // a step is shown so long at least

const contents = await (await fetch("demo.json")).json();
const models = new Models(contents, byId("loading"));
const state = {
  kind: contents.kinds[0],
  chosen: [], // one or two models
  puzzle: [],
  example: null, // of the list or of a file; of ARC the task, whatever is asked of it
  mistakes: [], // problems of what was typed or pasted, beside those of the rules
  uploaded: [],
  runs: [],
  shown: 0, // 0: the puzzle
  limit: null, // of steps, where the visitor set one; else each model's own
  playing: false,
  failure: "", // why the last step could not be computed
  brush: null,
};
let boards = [];
const task = () => TASKS[state.kind.task];

// ---- the puzzle

function setPuzzle(grid, mistakes = []) {
  Object.assign(state, { puzzle: grid, mistakes, runs: [], shown: 0, playing: false, failure: "" });
  if (document.activeElement !== byId("text")) byId("text").value = task().textOf(grid, state.kind);
  showPairs();
  render();
}

function showPairs() {
  if (!task().hasTasks) return byId("pairs").replaceChildren();
  const asked = task().textOf(state.puzzle, state.kind).replaceAll("\n", "/");
  return byId("pairs").replaceChildren(...pairs(state.example, asked, readText));
}

function write(place, cell) {
  setPuzzle(task().written(state.puzzle, place, cell, state.kind));
}

function mistake(place, key) {
  setPuzzle(state.puzzle, [{ places: [place], text: notAllowed(key, state.kind) }]);
}

function readText(text) {
  const { grid, problems } = task().read(text, state.kind);
  if (!task().hasTasks) byId("example").value = "";
  setPuzzle(grid, problems);
}

const problems = () => [...state.mistakes, ...task().problems(state.puzzle, state.kind)];

// ---- the runs

function start() {
  const tokens = task().tokensOf(state.puzzle, state.kind);
  const halt = byId("halt").checked;
  state.runs = state.chosen.map((model) => new Run(models.solver(model), tokens, {
    maxSteps: state.limit ?? model.max_steps, halt, puzzleId: model.puzzle_ids[state.example?.name] ?? 0,
  }));
}

// Everything that step `number` needs is computed; false where no model goes that far, or the puzzle was changed.
async function compute(number) {
  if (problems().length) return false;
  await Promise.all(state.chosen.map((model) => models.load(model)));
  if (!state.runs.length) start();
  const runs = state.runs;
  await Promise.all(runs.map(async (run) => {
    while (run.frames.length < number && !run.finished) await run.advance();
  }));
  return runs === state.runs && runs.some((run) => run.frames.length >= number);
}

async function go(number) {
  const wanted = Math.max(0, number);
  try {
    if (wanted > 0 && !(await compute(wanted))) return false;
  } catch (error) {
    state.failure = error.message;
    pause();
    return false;
  }
  state.shown = wanted;
  render();
  return true;
}

async function play() {
  const puzzle = state.puzzle;
  if (state.runs.length && atEnd()) state.shown = 0;
  state.playing = true;
  render();
  while (state.playing && puzzle === state.puzzle) {
    const pauseOf = new Promise((resolve) => { setTimeout(resolve, MILLISECONDS); });
    if (!(await go(state.shown + 1))) break;
    await pauseOf;
  }
  if (puzzle === state.puzzle) pause();
}

function pause() {
  state.playing = false;
  render();
}

const longest = () => Math.max(0, ...state.runs.map((run) => run.frames.length));
const atEnd = () => state.runs.every((run) => run.finished) && state.shown >= longest();

// ---- what is shown

function viewOf(run) {
  const step = Math.min(state.shown, run?.frames.length ?? 0);
  const frame = step ? run.frames[step - 1] : null;
  const cells = frame ? task().cellsOfTokens(frame.answers, state.kind) : state.puzzle;
  const verdict = frame ? task().verdict(state.puzzle, cells, state.kind, state.example) : null;
  const given = state.puzzle.map((cell, place) => !task().hasTasks && !task().isFree(cell) && cells[place] === cell);
  const view = {
    puzzle: state.puzzle, cells, given, confidence: frame?.confidence, changed: new Set(frame?.changed),
    broken: verdict?.places ?? new Set(), problems: frame ? [] : problems(),
  };
  return { view, frame, step, verdict };
}

function captionOf(model, run, { frame, step }) {
  if (!frame) {
    const unknown = task().hasTasks && !(state.example.name in model.puzzle_ids);
    return `${model.name}: the puzzle${unknown ? ", of a task that it was not trained on" : ""}`;
  }
  const halts = run.haltStep && step >= run.haltStep;
  const end = halts ? `; would halt at step ${run.haltStep}` : run.finished && step === run.frames.length ? "; did not halt" : "";
  return `${model.name}: step ${step}, ${counted(frame.changed.length, "cell")} changed, halt probability ${percent(frame.haltProbability)}${end}`;
}

function render() {
  const views = boards.map((board, number) => {
    const run = state.runs[number], found = viewOf(run);
    board.show(found.view);
    board.caption.textContent = captionOf(state.chosen[number], run, found);
    board.verdict.textContent = found.verdict?.text ?? "";
    board.verdict.classList.toggle("solved", Boolean(found.verdict?.solved));
    return found;
  });
  const named = state.chosen.map((model, i) => ({ name: model.name, halt: model.halt, frames: state.runs[i]?.frames ?? [], haltStep: state.runs[i]?.haltStep ?? 0 }));
  byId("curves").replaceChildren(legend(), ...curves(named, state.shown));
  byId("numbers").lastElementChild.replaceChildren(table(named));
  const wrong = problems();
  byId("play").textContent = state.playing ? "Pause" : state.shown ? "Go on" : "Solve";
  if (!state.playing && state.shown && atEnd()) byId("play").textContent = "Again";
  byId("play").disabled = byId("next").disabled = wrong.length > 0;
  byId("first").disabled = byId("back").disabled = state.shown === 0;
  byId("steps").max = longest();
  byId("steps").value = state.shown;
  byId("steps").disabled = longest() === 0;
  byId("shown").textContent = state.shown;
  put("problem", wrong.length ? wrong.slice(0, 3).map(problemText).join(". ") : state.failure);
  if (!state.playing) put("status", spoken(views));
}

function problemText({ places, text }) {
  return places.length ? `${placeName(places.at(-1), state.kind)}: ${text}` : text;
}

// While it plays nothing is said: a screen reader could not keep up.
function spoken(views) {
  if (!state.shown) return "";
  return views.map(({ verdict }, i) => `${boards[i].caption.textContent}. ${verdict?.text ?? ""}`).join(" ");
}

// A text that is read out when it changes.
function put(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function legend() {
  const names = state.chosen.map((model, i) => element("span", { class: `key key-${i}` }, model.name));
  return element("p", { class: "keys" }, ...names, element("span", { class: "key halts" }, "where it halts"));
}

// ---- the choices

function setKind(kind) {
  state.kind = kind;
  document.body.dataset.task = kind.task;
  const own = models.of(kind);
  setOptions(byId("model"), own.map((model) => [model.name, model.name]));
  setOptions(byId("other"), [["", "no other"], ...own.map((model) => [model.name, model.name])]);
  byId("other-label").hidden = own.length < 2;
  byId("text-label").textContent = `Puzzle as text, ${task().hint(kind)}`;
  byId("text").rows = kind.grid_shape[0];
  Object.assign(state, { uploaded: [], puzzle: [], example: kind.examples[0] ?? null });
  buildPad();
  listExamples();
  setModels([own[0]]);
  takeExample("0");
}

function setModels(chosen) {
  state.chosen = chosen;
  state.limit = null;
  byId("limit").value = Math.max(...chosen.map((model) => model.max_steps));
  models.show(chosen);
  byId("about").replaceChildren(...chosen.map(about));
  boards = chosen.map((model, number) => new Board(state.kind, model.name, number ? {} : {
    onWrite: write, onMistake: mistake, brush: task().draws ? () => state.brush : null,
  }));
  byId("boards").replaceChildren(...boards.map((board) => board.node));
  byId("boards").dataset.count = boards.length;
  if (state.puzzle.length) setPuzzle(state.puzzle, state.mistakes);
}

function buildPad() {
  const { draws } = task();
  const entries = task().pad(state.kind);
  state.brush = entries[0].write;
  const buttons = entries.map(({ write: cell, name, show }) => {
    const button = element("button", {
      type: "button", "aria-label": name, "aria-pressed": draws ? String(cell === state.brush) : null, "data-write": cell,
    }, show ?? cell);
    button.addEventListener("click", (event) => {
      if (!draws) {
        write(boards[0].focusedPlace, cell);
        if (event.detail) boards[0].focus(); // a pointer's click, not a key: it shows where the digit went
        return;
      }
      state.brush = cell;
      buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
    });
    return button;
  });
  byId("pad").replaceChildren(...buttons);
  byId("pad").classList.toggle("colours", Boolean(task().hasTasks));
}

function listExamples() {
  const known = state.kind.examples.map((example, i) => [String(i), `${i + 1}: ${task().exampleName(example)}`]);
  const given = state.uploaded.map((example, i) => [`file ${i}`, example.name ? task().exampleName(example) : `puzzle ${i + 1}`]);
  setOptions(byId("example"), [
    ...(task().hasTasks ? [] : [["", "your own"]]),
    ...(known.length ? [{ group: "Real ones, easiest first", options: known }] : []),
    ...(given.length ? [{ group: "From your file", options: given }] : []),
  ]);
}

function takeExample(value) {
  const list = value.startsWith("file ") ? state.uploaded : state.kind.examples;
  const example = value === "" ? null : list[Number(value.replace("file ", ""))];
  if (!task().hasTasks || example?.name) state.example = example;
  if (example?.text) readText(example.text);
  else setPuzzle(example ? task().gridOf(example, state.kind) : task().emptyGrid(state.kind));
  if (example || !task().hasTasks) byId("example").value = example ? value : "";
}

async function takeFile(file) {
  try {
    state.uploaded = task().examplesOfFile(await file.text(), state.kind, file.name);
    if (!state.uploaded.length) throw new Error(`${file.name} holds no puzzle`);
  } catch (error) {
    setPuzzle(state.puzzle, [{ places: [], text: error.message }]);
    return;
  }
  listExamples();
  takeExample("file 0");
}

const modelNamed = (name) => contents.models.find((model) => model.name === name);
const chosenModels = () => [byId("model").value, byId("other").value].filter(Boolean).map(modelNamed);

setOptions(byId("kind"), contents.kinds.map((kind, i) => [String(i), `${TASKS[kind.task].title}, ${kind.grid_shape.join(" × ")}`]));
byId("kind-label").hidden = contents.kinds.length < 2;
byId("kind").addEventListener("change", (event) => setKind(contents.kinds[Number(event.target.value)]));
byId("example").addEventListener("change", (event) => takeExample(event.target.value));
byId("clear").addEventListener("click", () => takeExample(""));
byId("text").addEventListener("input", (event) => readText(event.target.value));
byId("file").addEventListener("click", ({ target }) => { target.value = ""; }); // the same file may have been corrected
byId("file").addEventListener("change", (event) => event.target.files[0] && takeFile(event.target.files[0]));
for (const id of ["model", "other"]) byId(id).addEventListener("change", () => setModels(chosenModels()));
byId("limit").addEventListener("change", ({ target }) => {
  state.limit = Math.min(target.max, Math.max(target.min, Math.round(target.valueAsNumber || 0)));
  target.value = state.limit;
  setPuzzle(state.puzzle, state.mistakes);
});
byId("halt").addEventListener("change", () => setPuzzle(state.puzzle, state.mistakes));
byId("play").addEventListener("click", () => (state.playing ? pause() : play()));
byId("next").addEventListener("click", () => { state.playing = false; go(state.shown + 1); });
byId("back").addEventListener("click", () => { state.playing = false; go(Math.min(state.shown, longest()) - 1); });
byId("first").addEventListener("click", () => { state.playing = false; go(0); });
byId("steps").addEventListener("input", (event) => { state.playing = false; go(Number(event.target.value)); });
byId("boards").addEventListener("paste", pasted);
document.body.addEventListener("paste", (event) => { if (event.target === document.body) pasted(event); });

function pasted(event) {
  event.preventDefault();
  readText(event.clipboardData.getData("text"));
}

setKind(state.kind);
