"""The page in headless Chromium: what a visitor does, what it shows, and that it computes what solve() computes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from datasets_builders.features import load_puzzles
from modeling_trm.utils.loading import load_model
from modeling_trm.verifiers_trm import maze_path_connects, sudoku_is_solved
from tests.demo.browser import Browser
from tests.demo.conftest import (
    MAZE,
    MAZE_SHAPE,
    OTHER,
    QUICKSTART,
    served,
)

pytestmark = pytest.mark.slow
Visit = Callable[..., Browser]

PUZZLES = 16
HALT_TOLERANCE = 2e-3  # float32 in another order of summation, over 20 steps of a recursion that multiplies it

SOLVE = """(async (puzzles) => {
  const { Solver, solve } = await import("/solver.js");
  const contents = await (await fetch("/demo.json")).json();
  const solver = new Solver(contents.models[0], contents.runtime);
  const options = { maxSteps: contents.models[0].max_steps, halt: true };
  await solver.load();
  const solved = [];
  for (const tokens of puzzles) {
    const { answers, steps, haltProbability } = await solve(solver, tokens, options);
    solved.push({ answers, steps, haltProbability });
  }
  return solved;
})"""


def text(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({selector!r})].map((node) => node.textContent)")


def press(browser: Browser, name: str) -> None:
    """The button with this text."""
    browser.run(f"[...document.querySelectorAll('button')].find((one) => one.textContent === {name!r}).click()")


def choose(browser: Browser, select: str, value: str) -> None:
    browser.run(
        f"(() => {{ const one = document.getElementById({select!r}); one.value = {value!r};"
        f"one.dispatchEvent(new Event('change')); }})()"
    )


def middle(browser: Browser, selector: str) -> tuple[float, float]:
    """Of an element, in the window."""
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    return tuple(browser.run(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]"))


def solve(browser: Browser) -> None:
    """As fast as it computes: no step is shown for a time."""
    browser.run("window.setTimeout = (then) => { then(); }")
    press(browser, "Solve")
    browser.wait("document.getElementById('play').textContent === 'Again'")


def fits(browser: Browser) -> bool:
    """Whether nothing makes the page wider than its window."""
    return browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_answers_steps_and_halt_probabilities_are_those_of_solve(modules: Browser) -> None:
    puzzles = load_puzzles("sudoku", "test")
    chosen = puzzles.select(np.linspace(0, len(puzzles) - 1, PUZZLES).astype(int))
    input_ids = torch.from_numpy(chosen.inputs.astype(np.int64))
    model = load_model(str(QUICKSTART)).float()
    expected = model.solve(input_ids, engine="eager")  # as its reasoning_config.json says
    found = modules.run(f"{SOLVE}({json.dumps(input_ids.tolist())})")
    assert [one["steps"] for one in found] == expected.steps.tolist()
    assert len(set(expected.steps.tolist())) > 3
    assert [one["answers"] for one in found] == expected.answers.tolist()
    halts = torch.tensor([one["haltProbability"] for one in found])
    torch.testing.assert_close(halts, expected.halt_probability, rtol=0, atol=HALT_TOLERANCE)


def test_a_visitor_plays_pauses_steps_and_goes_back(visit: Visit, pictures: Path) -> None:
    browser = visit()
    assert text(browser, "#shown") == ["0"]
    assert any(text(browser, "[role=gridcell]"))  # the first example
    browser.picture(pictures / "puzzle.png")
    choose(browser, "example", "6")
    press(browser, "Step")
    browser.wait("document.getElementById('shown').textContent === '1'")
    first = text(browser, "[role=gridcell]")
    assert all(first) and "step 1," in text(browser, "#boards figcaption")[0]
    changed = browser.run("document.querySelectorAll('.board .changed').length")
    assert f"{changed} cells changed" in text(browser, "#boards figcaption")[0]
    press(browser, "Step")
    browser.wait("document.getElementById('shown').textContent === '2'")
    press(browser, "Back")
    browser.wait("document.getElementById('shown').textContent === '1'")
    assert text(browser, "[role=gridcell]") == first
    press(browser, "Go on")
    browser.wait("Number(document.getElementById('shown').textContent) > 1")
    press(browser, "Pause")
    browser.picture(pictures / "paused.png")
    press(browser, "Go on")
    browser.wait("document.getElementById('play').textContent === 'Again'")
    steps = int(text(browser, "#shown")[0])
    assert browser.run("document.querySelectorAll('#numbers tbody tr').length") == steps
    assert browser.run("document.querySelectorAll('#curves svg polyline')[0].points.length") == steps
    assert text(browser, ".verdict")[0].startswith(("Solved", "Not solved"))
    assert text(browser, "#status")[0].endswith(text(browser, ".verdict")[0])  # what a screen reader is told
    press(browser, "Puzzle")
    browser.wait("document.getElementById('shown').textContent === '0'")
    assert "" in text(browser, "[role=gridcell]")


def test_it_stops_where_the_model_halts_or_goes_on(visit: Visit, pictures: Path) -> None:
    browser = visit()
    solve(browser)
    most = load_model(str(QUICKSTART)).reasoning_config.max_steps
    halted = int(text(browser, "#shown")[0])
    assert halted < most and f"would halt at step {halted}" in text(browser, "#boards figcaption")[0]
    assert text(browser, ".verdict") == ["Solved: every row, column and box has each digit once."]
    browser.picture(pictures / "solved.png")
    browser.run("document.getElementById('halt').click()")
    solve(browser)
    assert text(browser, "#shown") == [str(most)]
    assert f"would halt at step {halted}" in text(browser, "#boards figcaption")[0]
    assert browser.run("document.querySelectorAll('#curves .halts.line').length") == 3
    assert browser.run("document.querySelectorAll('#curves .bound').length") == 1  # the model's threshold
    for written, steps in (("2.6", "3"), ("", "1"), ("999", "128")):
        choose(browser, "limit", written)
        assert browser.run("document.getElementById('limit').value") == steps
    choose(browser, "limit", "1")
    solve(browser)
    assert text(browser, "#shown") == ["1"]


def test_what_contradicts_is_said_beside_the_cell(visit: Visit, pictures: Path) -> None:
    browser = visit()
    press(browser, "Empty grid")
    browser.run("document.querySelector('[data-place=\"0\"]').focus()")
    for key in ("5", "ArrowRight", "3", "ArrowRight", "5"):
        browser.press(key)
    assert browser.run("document.activeElement.dataset.place") == "2"
    assert text(browser, ".bubble") == ["5 stands twice in row 1; 5 stands twice in box 1"]
    bubble, cell = (
        browser.run(f"document.querySelector({name!r}).getBoundingClientRect().toJSON()")
        for name in (".bubble", '[data-place="2"]')
    )
    assert 0 <= bubble["top"] - cell["bottom"] < 10
    assert bubble["left"] <= cell["left"] + 1 < bubble["right"]
    assert browser.run("document.querySelectorAll('[aria-invalid]').length") == 2
    assert browser.run("document.getElementById('play').disabled")
    browser.picture(pictures / "contradiction.png")
    browser.press("Delete")
    assert browser.run("document.querySelector('.bubble').hidden && !document.getElementById('play').disabled")
    browser.press("x")
    assert text(browser, ".bubble") == ["“x” is not allowed here; allowed: .123456789"]
    browser.press("End")
    assert browser.run("document.activeElement.dataset.place") == "8"
    press(browser, "7")  # of the pad
    assert text(browser, "[role=gridcell]")[:9] == ["5", "3", "", "", "", "", "", "", "7"]


def test_a_mouse_shows_where_it_writes(visit: Visit) -> None:
    browser = visit()
    for selector in ('[data-place="4"]', '[data-write="7"]'):
        browser.drag([middle(browser, selector)])
        assert browser.run("document.activeElement.dataset.place") == "4"
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert text(browser, "[role=gridcell]")[4] == "7"


def test_a_puzzle_is_pasted_typed_as_text_or_uploaded(visit: Visit, tmp_path: Path) -> None:
    browser = visit()
    puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    pasting = (
        "(() => {{ const data = new DataTransfer(); data.setData('text', {0});"
        "document.querySelector('[data-place=\"4\"]').dispatchEvent("
        "new ClipboardEvent('paste', {{ clipboardData: data, bubbles: true, cancelable: true }})); }})()"
    )
    lines = "\n".join(puzzle[start : start + 9].replace(".", "0") for start in range(0, 81, 9))
    browser.run(pasting.format(json.dumps(lines)))
    assert "".join(cell or "." for cell in text(browser, "[role=gridcell]")) == puzzle
    assert browser.run("document.getElementById('text').value").replace("\n", "") == puzzle
    browser.run(pasting.format(json.dumps(puzzle[:-1] + "x")))
    assert text(browser, ".bubble") == ["“x” is not allowed here; allowed: .123456789"]
    assert text(browser, "#problem")[0].startswith("Row 9, column 9: ")
    browser.run(pasting.format(json.dumps(puzzle + "1")))
    assert text(browser, "#problem") == ["82 cells, expected 81 (9 × 9)"]
    file = tmp_path / "puzzles.txt"
    file.write_text(f"{puzzle}\n\n{lines}\n{'.' * 81}\n", encoding="utf-8")
    browser.choose_file("#file", file)
    browser.wait("document.querySelectorAll('#example optgroup').length === 2")
    assert text(browser, "#example optgroup:last-child option") == ["puzzle 1", "puzzle 2", "puzzle 3"]
    assert "".join(cell or "." for cell in text(browser, "[role=gridcell]")) == puzzle
    choose(browser, "example", "file 2")
    assert not any(text(browser, "[role=gridcell]"))


def test_a_large_model_is_loaded_on_request_and_two_are_compared(visit: Visit, pictures: Path) -> None:
    browser = visit()
    choose(browser, "other", OTHER)
    assert text(browser, "#loading p")[1] == f"{OTHER} is not loaded yet"
    assert text(browser, "#about h3") == [QUICKSTART.name, OTHER]
    browser.picture(pictures / "asked for.png")
    browser.run("[...document.querySelectorAll('#loading button')].find((one) => !one.hidden).click()")
    browser.wait(f"document.getElementById('loading').textContent.includes('{OTHER}: ready')")
    solve(browser)
    boards = browser.run("[...document.querySelectorAll('.board')].map((board) => board.textContent)")
    assert len(boards) == 2 and boards[0] == boards[1]  # the same model under two names
    assert browser.run("document.querySelectorAll('#curves polyline').length") == 6
    browser.picture(pictures / "two models.png")


def test_a_maze_is_drawn_with_the_mouse(visit: Visit, pictures: Path) -> None:
    browser = visit()
    choose(browser, "kind", "1")
    browser.wait(f"document.getElementById('loading').textContent.includes('{MAZE}: ready')")
    assert "The maze has no start" in text(browser, "#problem")[0]
    width = MAZE_SHAPE[1]

    def at(place: int) -> tuple[float, float]:
        return middle(browser, f'[data-place="{place}"]')

    browser.drag([at(width), at(width + 6)])  # one quick movement: what lies between is drawn as well
    press(browser, "start")
    browser.drag([at(0)])
    press(browser, "goal")
    browser.drag([at(2 * width)])
    drawn = browser.run("document.getElementById('text').value").splitlines()
    assert drawn == ["S       ", "####### ", "G       ", *[" " * width] * 3]
    browser.drag([at(width - 1)])  # there is one goal: it moves
    assert browser.run("document.getElementById('text').value").splitlines()[:3] == [
        "S      G",
        "####### ",
        " " * width,
    ]
    browser.picture(pictures / "maze.png")
    solve(browser)
    assert text(browser, ".verdict")[0].startswith("Not solved")  # its weights are random


def test_the_verdicts_are_those_of_the_verifiers(modules: Browser) -> None:
    generator = np.random.default_rng(0)
    for task, rule in (("sudoku", sudoku_is_solved), ("maze", maze_path_connects)):
        puzzles = load_puzzles(task, "test")
        rows = generator.choice(len(puzzles), 40, replace=False)
        answers = puzzles.labels[rows].astype(np.int64)
        for answer in answers[10:]:  # one to four cells of the right answer are altered
            places = generator.choice(len(answer), generator.integers(1, 5), replace=False)
            answer[places] = generator.integers(2, puzzles.processor.vocab_size, len(places))
        inputs = torch.from_numpy(puzzles.inputs[rows].astype(np.int64))
        expected = rule(inputs, torch.from_numpy(answers), puzzles.processor.grid_shape).tolist()
        grids = [[puzzles.processor.decode(ids) for ids in batch] for batch in (inputs, answers)]
        kind = {"grid_shape": puzzles.processor.grid_shape, "characters": puzzles.processor.characters}
        found = modules.run(
            f"import('/{task}.js').then(({{ verdict }}) => {json.dumps(list(zip(*grids)))}.map(([puzzle, answer]) =>"
            f"verdict([...puzzle], [...answer], {json.dumps(kind)}).solved))"
        )
        assert found == expected
        assert 10 <= sum(expected) < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(visit: Visit, pictures: Path, scheme: str) -> None:
    browser = visit(360, 740, scheme)
    assert fits(browser)
    assert browser.run("document.querySelector('[role=gridcell]').getBoundingClientRect().width") > 30
    choose(browser, "example", "9")
    solve(browser)
    browser.picture(pictures / f"phone {scheme}.png")
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert fits(browser)
    choose(browser, "other", OTHER)
    assert fits(browser)
    for kind in ("1", "2"):
        choose(browser, "kind", kind)
        assert fits(browser)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 200) == (scheme == "dark")


def test_everything_has_a_name_for_a_screen_reader_and_is_reached_by_keys(visit: Visit) -> None:
    browser = visit()
    press(browser, "Step")
    browser.wait("document.getElementById('shown').textContent === '1'")
    nodes = browser.accessibility_tree()
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    for role in ("button", "combobox", "slider", "spinbutton", "checkbox", "textbox", "grid", "gridcell", "image"):
        names = [name for found, name in roles if found == role]
        assert all(names) and (names or role == "textbox"), (role, names)
    assert ("grid", f"{QUICKSTART.name}, 9 by 9 cells") in roles
    cells = [name for role, name in roles if role == "gridcell"]
    assert len(cells) == 81 and cells[1].startswith("Row 1, column 2: ")
    assert any("% sure, changed" in name for name in cells) and any(": given " in name for name in cells)
    reached = set()
    browser.run("document.getElementById('numbers').open = true; document.querySelector('.skip').focus()")
    for _ in range(30):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.id || document.activeElement.getAttribute('role')"))
    assert reached.issuperset("example clear gridcell play next back steps limit halt model region".split())


def test_no_request_leaves_the_page(page: Path, tmp_path: Path) -> None:
    """From the browser's own log of the network, which holds those of workers and threads as well."""
    for address in served(page):
        log = tmp_path / "net.json"
        with Browser(tmp_path / "profile", f"--log-net-log={log}") as browser:
            browser.open(address)
            browser.wait("document.getElementById('loading').textContent.includes('ready')")
            solve(browser)
            assert browser.errors == []
        asked = {url for url, initiator in requests_of(log) if address.startswith(initiator) or url.startswith(address)}
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(address).netloc}
        assert {"/demo.json", "/worker.js", "/runtime/ort-wasm-simd-threaded.wasm.packed"} <= {
            urlsplit(url).path for url in asked
        }


def requests_of(log: Path) -> Iterator[tuple[str, str]]:
    """(address, who asked) of every request."""
    written = json.loads(log.read_text(encoding="utf-8"))
    start = written["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    for event in written["events"]:
        if event["type"] == start and "url" in event.get("params", {}):
            yield event["params"]["url"], event["params"].get("initiator", "")


def test_a_failed_download_is_said_and_can_be_tried_again(page: Path, opened: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    for entry in page.iterdir():
        if entry.name != "models":
            (folder / entry.name).symlink_to(entry)
    for address in served(folder):
        opened.open(address)
        opened.wait("document.getElementById('loading').textContent.includes('could not be loaded')")
        assert f"models/{QUICKSTART.name}/step.onnx.packed: the server answered 404" in text(opened, "#loading")[0]
        (folder / "models").symlink_to(page / "models")
        opened.run("document.querySelector('#loading button').click()")
        opened.wait("document.getElementById('loading').textContent.includes('ready')")
        solve(opened)
