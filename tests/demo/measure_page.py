"""How long a built page takes in headless Chromium, as a table: the mean over 20 visits and over 20 hard Sudokus.

Beside it the seconds of all the browser's threads on a processor, which hang less on what else this machine computes.

    trm demo build --output site
    python -m tests.demo.measure_page site

First interaction: from opening the address until a digit typed is in the grid. Ready: until the first model can take a
step, its download from this machine included. A puzzle: all supervision steps until the model halts, at most as many as
its checkpoint says; the puzzles are of the hardest source of the shipped sample's test split, at equal distances.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets_builders.features import load_puzzles
from modeling_trm.utils.machine import describe_machine
from tests.demo.browser import Browser
from tests.demo.conftest import served

HARDEST = "gen_vicinity_hard"
SOLVE = """(async (index, puzzles) => {
  const { Solver, solve } = await import("/solver.js");
  const contents = await (await fetch("/demo.json")).json();
  const model = contents.models[index];
  const solver = globalThis[`solver ${index}`] ??= new Solver(model, contents.runtime);
  await solver.load();
  const found = [];
  for (const tokens of puzzles) {
    const start = performance.now();
    const { steps } = await solve(solver, tokens, { maxSteps: model.max_steps, halt: true });
    found.push({ seconds: (performance.now() - start) / 1000, steps });
  }
  return found;
})"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="DIR", help="folder that trm demo build wrote")
    parser.add_argument("--times", type=int, default=20, help="(default: 20)")
    arguments = parser.parse_args(argv)
    models = json.loads((arguments.page / "demo.json").read_text(encoding="utf-8"))["models"]
    puzzles = load_puzzles("sudoku", "test")
    rows = np.flatnonzero(puzzles.sources == HARDEST)
    hard = puzzles.inputs[rows[np.linspace(0, len(rows) - 1, arguments.times).astype(int)]].tolist()
    print(f"{describe_machine()}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | mean | least | most | processor, mean |\n|---|---|---|---|---|")
    for address in served(arguments.page):
        visits = [visit(address) for _ in range(arguments.times)]
        show("first interaction", [first for first, _ in visits])
        show("first model ready", [ready for _, ready in visits])
        with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
            browser.open(address)
            for index, model in enumerate(models):
                if model["task"] != puzzles.task:
                    continue
                browser.run(f"{SOLVE}({index}, [])")  # loads it
                found = [solve(browser, index, tokens) for tokens in hard]
                steps = statistics.mean(one["steps"] for one, _ in found)
                name = f"a hard puzzle, {model['name']} ({steps:.1f} steps)"
                show(name, [(one["seconds"], on_processor) for one, on_processor in found])


def solve(browser: Browser, index: int, tokens: list[int]) -> tuple[dict[str, float], float]:
    """{seconds, steps} of a puzzle, and its seconds on a processor."""
    before = browser.processor_seconds()
    (found,) = browser.run(f"{SOLVE}({index}, {json.dumps([tokens])})")
    return found, browser.processor_seconds() - before


def visit(address: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds, and those on a processor, to the first interaction and to the first model, with an empty cache."""
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        start = time.monotonic()
        browser.open(address)
        browser.wait("document.querySelector('[data-place=\"0\"]')")
        browser.run("document.querySelector('[data-place=\"0\"]').focus()")
        browser.press("7")
        browser.wait("document.querySelector('[data-place=\"0\"]').textContent === '7'")
        first = time.monotonic() - start, browser.processor_seconds()
        browser.wait("document.getElementById('loading').textContent.includes('ready')")
        return first, (time.monotonic() - start, browser.processor_seconds())


def show(what: str, found: Sequence[tuple[float, float]]) -> None:
    seconds, on_processor = zip(*found, strict=True)
    values = statistics.mean(seconds), min(seconds), max(seconds), statistics.mean(on_processor)
    print(f"| {what} | " + " | ".join(f"{value:.2f} s" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
